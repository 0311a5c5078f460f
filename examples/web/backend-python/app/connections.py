"""What the page asks for: a connect session before the bank link opens, and afterwards everything by the connection's
id."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from anyio import create_task_group
from fastapi import APIRouter, Depends
from strongroom import RelayAnswer
from strongroom.types import Connection, SessionResponse

from .banks import Calls
from .errors import Refusal
from .settings import BANKS, Bank
from .users import User

T = TypeVar("T")
router = APIRouter()


def shown(connection: Connection) -> dict[str, Any]:
    """What the page needs of a connection, and no more."""
    institution, attention, failure = connection["institution"], connection["attention"], connection["failure"]
    return {
        "id": connection["id"],
        "bank": connection["provider"],
        "status": connection["status"],
        "bankName": institution["name"] if institution else None,
        "attention": attention["type"] if attention else None,
        "failure": failure["type"] if failure else None,
        "createdAt": connection["createdAt"],
        "duplicate": bool(connection.get("duplicateOf")),
    }


def bank_of(bank: str) -> Bank:
    if bank not in BANKS:
        raise Refusal(404, "not_found")
    return BANKS[bank]


@dataclass(frozen=True)
class Own:
    """A connection of the user's own."""

    bank: Bank
    id: str
    calls: Calls


async def own_connection(bank: str, id: str, user: User) -> Own:
    """The connection of a request, if it is this user's.

    The client of this backend may see the connections of all of them: who may see which is decided here. Another user's
    answers like one that does not exist.
    """
    found = bank_of(bank)
    connection = await found.strongroom.get_connection(id)
    if connection["clientUserID"] != user:
        raise Refusal(404, "not_found")
    return Own(found, connection["id"], found.calls(found.strongroom, connection["id"]))


async def own_plaid_connection(id: str, user: User) -> Own:
    return await own_connection("plaid", id, user)


OwnConnection = Annotated[Own, Depends(own_connection)]


async def calling(own: Own, work: Awaitable[T]) -> T:
    """Waits for a call's answer. If the bank link refuses it because the user has to log in again, Strongroom has taken
    note and makes no further call, so as not to lock the user's bank account: the page is told the same as later."""
    try:
        return await work
    except Refusal as refusal:
        if refusal.code == "bank_refused" and (await own.bank.strongroom.get_connection(own.id))["attention"]:
            raise Refusal(409, "connection_needs_attention") from refusal
        raise


# The page hands the bank link's result to Strongroom itself, with this session. The code and the user secret in it never
# come through here.
@router.post("/{bank}/connect-sessions", status_code=201)
async def connect_session(bank: Annotated[Bank, Depends(bank_of)], user: User) -> SessionResponse:
    return await bank.strongroom.create_connect_session(client_user_id=user)


LINK = {"client_name": "Tally", "language": "en", "country_codes": ["US"]}


def link_token(answer: RelayAnswer) -> dict[str, str]:
    if not answer.ok:
        raise Refusal(502, "bank_refused", type=answer.body.get("error_code"))
    return {"linkToken": answer.body["link_token"]}


# Plaid's Link is opened with a link token.
@router.post("/plaid/link-tokens", status_code=201)
async def new_link_token(user: User) -> dict[str, str]:
    request = {"clientUserID": user, "products": ["transactions"], **LINK}
    return link_token(await BANKS["plaid"].strongroom.create_plaid_link_token(request))


# Asked again and again while something is pending. Where Strongroom's webhooks reach this backend, their receiver goes
# beside this router, and tells the page instead.
@router.get("/connections")
async def connections(user: User) -> dict[str, Any]:
    found: list[Connection] = []

    async def look(bank: Bank) -> None:
        page = await bank.strongroom.list_connections(client_user_id=user, limit=50)
        found.extend(page["connections"])

    async with create_task_group() as both:
        for bank in BANKS.values():
            both.start_soon(look, bank)
    found.sort(key=lambda connection: connection["createdAt"], reverse=True)
    return {"connections": [shown(connection) for connection in found]}


@router.get("/{bank}/connections/{id}/accounts")
async def accounts(own: OwnConnection) -> Any:
    return await calling(own, own.calls.accounts())


@router.get("/{bank}/connections/{id}/transactions")
async def transactions(own: OwnConnection, account: str) -> Any:
    return {"transactions": await calling(own, own.calls.transactions(account))}


# Link repairs a login in "update mode", with a link token of the connection. No new token comes of it.
@router.post("/plaid/connections/{id}/link-tokens", status_code=201)
async def repair_link_token(own: Annotated[Own, Depends(own_plaid_connection)]) -> dict[str, str]:
    return link_token(await own.bank.strongroom.call_plaid(own.id, "link/token/create", LINK))


# The user has repaired the login, or says that the bank has unlocked it: calls are made again.
@router.delete("/{bank}/connections/{id}/attention")
async def clear_attention(own: OwnConnection) -> dict[str, Any]:
    return shown(await own.bank.strongroom.clear_attention(own.id))


# `delinked` if the bank link has confirmed it, `revoking` if it has not yet. For the app both are the end: nothing uses
# the token any more, and Strongroom goes on until it is confirmed. Asking twice is safe.
@router.post("/{bank}/connections/{id}/delink")
async def delink(own: OwnConnection) -> dict[str, Any]:
    return shown(await own.bank.strongroom.delink_connection(own.id))
