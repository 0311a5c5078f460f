"""Plaid's SDK for Python against the sandbox, or against Strongroom that stands before one:

    SANDBOX_URL=http://127.0.0.1:PORT PLAID_BASE_URL=$SANDBOX_URL/plaid \
      PLAID_CLIENT_ID=… PLAID_SECRET=… python plaid_python.py

Link token, exchange, accounts, transactions, remove, and the shape of an error. PLAID_BASE_URL is whom the
SDK calls; SANDBOX_URL is where Link is. Any deviation ends it with an exception.
"""

import base64
import datetime
import json
import os
import urllib.request

import plaid
from plaid.api import plaid_api
from plaid.model.accounts_balance_get_request import AccountsBalanceGetRequest
from plaid.model.accounts_get_request import AccountsGetRequest
from plaid.model.auth_get_request import AuthGetRequest
from plaid.model.country_code import CountryCode
from plaid.model.identity_get_request import IdentityGetRequest
from plaid.model.institutions_get_by_id_request import InstitutionsGetByIdRequest
from plaid.model.item_access_token_invalidate_request import ItemAccessTokenInvalidateRequest
from plaid.model.item_get_request import ItemGetRequest
from plaid.model.item_public_token_exchange_request import ItemPublicTokenExchangeRequest
from plaid.model.item_remove_request import ItemRemoveRequest
from plaid.model.item_webhook_update_request import ItemWebhookUpdateRequest
from plaid.model.link_token_create_request import LinkTokenCreateRequest
from plaid.model.link_token_create_request_user import LinkTokenCreateRequestUser
from plaid.model.link_token_get_request import LinkTokenGetRequest
from plaid.model.products import Products
from plaid.model.sandbox_item_fire_webhook_request import SandboxItemFireWebhookRequest
from plaid.model.sandbox_item_reset_login_request import SandboxItemResetLoginRequest
from plaid.model.sandbox_public_token_create_request import SandboxPublicTokenCreateRequest
from plaid.model.transactions_get_request import TransactionsGetRequest
from plaid.model.transactions_sync_request import TransactionsSyncRequest
from plaid.model.webhook_verification_key_get_request import WebhookVerificationKeyGetRequest

SANDBOX_URL = os.environ["SANDBOX_URL"]
BASE_URL = os.environ["PLAID_BASE_URL"]
THROUGH = not BASE_URL.startswith(SANDBOX_URL)

client = plaid_api.PlaidApi(
    plaid.ApiClient(
        plaid.Configuration(
            host=BASE_URL,
            api_key={
                "clientId": os.environ["PLAID_CLIENT_ID"],
                "secret": os.environ["PLAID_SECRET"],
            },
        )
    )
)


def refused(call, request):
    """Returns Plaid's error of a call that is refused."""
    try:
        answer = call(request)
    except plaid.ApiException as error:
        assert error.status == 400, error
        body = json.loads(error.body)
        for name in ("error_type", "error_code", "error_message", "request_id"):
            assert isinstance(body[name], str), body
        assert "display_message" in body, body
        return body
    raise AssertionError(f"not refused: {answer}")


def link(link_token):
    """Does what the user does in Link."""
    body = json.dumps({"linkToken": link_token}).encode()
    with urllib.request.urlopen(f"{SANDBOX_URL}/sandbox/plaid/link", body, timeout=10) as answer:
        return json.load(answer)


def exchange_request(public_token):
    return ItemPublicTokenExchangeRequest(public_token=public_token)


def transactions(access_token):
    """Counts all transactions, page by page."""
    count, cursor = 0, ""
    while True:
        page = client.transactions_sync(
            TransactionsSyncRequest(access_token=access_token, cursor=cursor, count=100)
        )
        count += len(page.added)
        cursor = page.next_cursor
        if not page.has_more:
            return count


def webhook_key(item_id):
    """Looks up the key that signs an item's webhooks."""
    url = f"{SANDBOX_URL}/sandbox/plaid/items/{item_id}/webhooks"
    body = json.dumps({"webhookCode": "LOGIN_REPAIRED"}).encode()
    with urllib.request.urlopen(url, body, timeout=30) as answer:
        header = json.load(answer)["verification"].split(".")[0]
    key_id = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
    return client.webhook_verification_key_get(WebhookVerificationKeyGetRequest(key_id=key_id)).key


def rest_of_the_sandbox():
    """Calls what a Strongroom in between does not pass on. The SDK checks the types of every answer."""
    made = client.sandbox_public_token_create(
        SandboxPublicTokenCreateRequest(
            institution_id="ins_109509", initial_products=[Products("auth")]
        )
    )
    exchanged = client.item_public_token_exchange(exchange_request(made.public_token))
    access_token, item_id = exchanged.access_token, exchanged.item_id
    invalidate = ItemAccessTokenInvalidateRequest(access_token=access_token)
    access_token = client.item_access_token_invalidate(invalidate).new_access_token
    assert refused(client.item_access_token_invalidate, invalidate)["error_type"] == "INVALID_INPUT"

    balances = client.accounts_balance_get(AccountsBalanceGetRequest(access_token=access_token))
    assert balances.accounts[0].balances.available > 0, balances
    auth = client.auth_get(AuthGetRequest(access_token=access_token))
    assert len(auth.numbers.ach) == 2, auth
    identity = client.identity_get(IdentityGetRequest(access_token=access_token))
    assert identity.accounts[0].owners[0].names, identity
    day = datetime.date.today() + datetime.timedelta(days=1)
    month = datetime.timedelta(days=31)
    booked = client.transactions_get(
        TransactionsGetRequest(access_token=access_token, start_date=day - month, end_date=day)
    )
    assert booked.total_transactions >= len(booked.transactions) > 0, booked
    institution = client.institutions_get_by_id(
        InstitutionsGetByIdRequest(institution_id="ins_109509", country_codes=[CountryCode("US")])
    )
    assert institution.institution.name == "First Gingham Credit Union", institution

    hook = "http://127.0.0.1:9/hook"
    client.item_webhook_update(ItemWebhookUpdateRequest(access_token=access_token, webhook=hook))
    assert webhook_key(item_id).alg == "ES256"
    fire = SandboxItemFireWebhookRequest(
        access_token=access_token, webhook_code="SYNC_UPDATES_AVAILABLE"
    )
    assert client.sandbox_item_fire_webhook(fire).webhook_fired
    reset = SandboxItemResetLoginRequest(access_token=access_token)
    assert client.sandbox_item_reset_login(reset).reset_login
    item = client.item_get(ItemGetRequest(access_token=access_token)).item
    assert item.error.error_code == "ITEM_LOGIN_REQUIRED" and item.webhook == hook, item
    client.item_remove(ItemRemoveRequest(access_token=access_token))


def main():
    created = client.link_token_create(
        LinkTokenCreateRequest(
            user=LinkTokenCreateRequestUser(client_user_id="python"),
            client_name="Clients",
            products=[Products("transactions")],
            country_codes=[CountryCode("US")],
            language="en",
        )
    )
    linked = link(created.link_token)
    public_token = linked["public_token"]
    if not THROUGH:
        got = client.link_token_get(LinkTokenGetRequest(link_token=created.link_token))
        assert got.link_sessions[0].on_success.public_token == public_token, got

    exchanged = client.item_public_token_exchange(exchange_request(public_token))
    access_token = exchanged.access_token
    if THROUGH:
        again = client.item_public_token_exchange(exchange_request(public_token))
        assert again.access_token == access_token, "a repeat gives the same"
    else:
        error = refused(client.item_public_token_exchange, exchange_request(public_token))
        assert error["error_type"] == "INVALID_INPUT", error
        assert error["error_code"] == "INVALID_PUBLIC_TOKEN", error

    request = AccountsGetRequest(access_token=access_token)
    got = client.accounts_get(request)
    assert got.item.item_id == exchanged.item_id, got
    masks = [account["mask"] for account in linked["metadata"]["accounts"]]
    assert [account.mask for account in got.accounts] == masks, got
    assert transactions(access_token) > 100

    client.item_remove(ItemRemoveRequest(access_token=access_token))
    gone = refused(client.accounts_get, request)
    assert gone["error_code"] in ("ITEM_NOT_FOUND", "INVALID_ACCESS_TOKEN"), gone
    bad = refused(client.item_public_token_exchange, exchange_request("public-sandbox-0"))
    assert bad["error_code"] == "INVALID_PUBLIC_TOKEN", bad
    if not THROUGH:
        rest_of_the_sandbox()
    print(f"ok: plaid-python{', through Strongroom' if THROUGH else ''}")


main()
