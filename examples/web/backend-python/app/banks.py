"""How the two bank links are asked for the same two things. Every call goes through Strongroom by the connection's id: it
puts the token in, lets calls with one token wait for each other where they must, and starts none after a revocation.

An answer that is the bank link's own comes back whatever its status; a refusal of Strongroom's is raised.
"""

from datetime import date, timedelta
from typing import Any, Protocol

from strongroom import AsyncStrongroom, RelayAnswer

from .errors import Refusal

PERIOD = timedelta(days=30)


class Calls(Protocol):
    """What is asked of a connection, at either bank link."""

    async def accounts(self) -> dict[str, Any]: ...

    async def transactions(self, account: str) -> list[dict[str, Any]]: ...


def refused(kind: str | None, answer: RelayAnswer) -> Refusal:
    """The bank link's own refusal, such as INVALID_ACCOUNT_ID or PRODUCT_NOT_READY."""
    more = {} if answer.retry_after is None else {"retryAfter": answer.retry_after}
    return Refusal(502, "bank_refused", type=kind, **more)


class Dapi:
    def __init__(self, strongroom: AsyncStrongroom, id: str) -> None:
        self._strongroom, self._id = strongroom, id

    async def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = await self._strongroom.call_dapi(self._id, path, body)
        # Dapi may ask the user something ("user_input_required"). For what is called here it hardly ever does;
        # docs/calling-dapi.md shows how to go on.
        status = answer.body.get("status")
        if not answer.ok or status != "done":
            raise refused(answer.body.get("type") or status, answer)
        return answer.body

    async def accounts(self) -> dict[str, Any]:
        metadata = await self._call("metadata/accounts/get")
        shown = []
        for account in (await self._call("data/accounts/get"))["accounts"]:
            balance = (await self._call("data/balance/get", {"accountID": account["id"]}))["balance"]
            shown.append(
                {
                    "id": account["id"],
                    "name": account["name"],
                    "ending": (account.get("iban") or account.get("number") or "")[-4:],
                    "balance": balance["amount"],
                    "currency": balance["currency"]["code"],
                }
            )
        return {"bankName": metadata["accountsMetadata"]["bankName"], "accounts": shown}

    async def transactions(self, account: str) -> list[dict[str, Any]]:
        today = date.today()
        period = {"fromDate": str(today - PERIOD), "toDate": str(today)}
        found = await self._call("data/transactions/get", {"accountID": account, **period})
        return [
            {
                "date": one["date"][:10],
                "description": one["description"],
                "amount": -one["amount"] if one["type"] == "debit" else one["amount"],
                "currency": one["currency"]["code"],
            }
            for one in found["transactions"]
        ]


class Plaid:
    def __init__(self, strongroom: AsyncStrongroom, id: str) -> None:
        self._strongroom, self._id = strongroom, id

    async def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = await self._strongroom.call_plaid(self._id, path, body)
        if not answer.ok:
            raise refused(answer.body.get("error_code"), answer)
        return answer.body

    async def accounts(self) -> dict[str, Any]:
        found = await self._call("accounts/get")
        shown = [
            {
                "id": account["account_id"],
                "name": account["name"],
                "ending": account["mask"] or "",
                "balance": account["balances"]["current"],
                "currency": account["balances"]["iso_currency_code"],
            }
            for account in found["accounts"]
        ]
        return {"bankName": found["item"]["institution_name"], "accounts": shown}

    # An app that keeps transactions asks `transactions/sync` for what is new instead, and keeps its cursor.
    async def transactions(self, account: str) -> list[dict[str, Any]]:
        today = date.today()
        period = {"start_date": str(today - PERIOD), "end_date": str(today)}
        options = {"account_ids": [account], "count": 100}
        found = await self._call("transactions/get", {**period, "options": options})
        return [
            {
                "date": one["date"],
                "description": one["merchant_name"] or one["name"],
                # Plaid counts what leaves an account as positive.
                "amount": -one["amount"],
                "currency": one["iso_currency_code"],
            }
            for one in found["transactions"]
        ]
