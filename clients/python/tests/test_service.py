"""Against a real service with its sandbox, which scripts/test-client-libraries starts."""

from __future__ import annotations

import os
import uuid
from typing import Any

import httpx
import pytest
from conftest import Driver

from strongroom import StrongroomProblem

URL, SANDBOX = os.environ.get("STRONGROOM_URL"), os.environ.get("SANDBOX_URL")
CREDENTIALS = {"client_id": os.environ.get("CLIENT_ID"), "client_secret": os.environ.get("CLIENT_SECRET")}
pytestmark = pytest.mark.skipif(not URL, reason="no service")


def user() -> str:
    return f"py-{uuid.uuid4().hex[:8]}"


def linked(**more: Any) -> Any:
    return httpx.post(f"{SANDBOX}/sandbox/connect", json={"clientUserID": user(), **more}).json()


@pytest.fixture
def client(driver: Driver) -> Any:
    return driver.make(base_url=URL, **CREDENTIALS)


def test_a_connections_life(driver: Driver, client: Any) -> None:
    ada, result = user(), linked()
    session = driver.call(client.create_connect_session, client_user_id=ada)
    page = driver.make(base_url=URL, session=session["token"])
    made = driver.call(page.create_connection, result)
    assert (made["status"], made["clientUserID"]) == ("active", ada)
    assert driver.call(page.create_connection, result)["id"] == made["id"]
    assert driver.call(page.wait_for_connection, made["id"])["status"] == "active"
    accounts = driver.call(client.call_dapi, made["id"], "data/accounts/get")
    assert accounts.ok and accounts.body["accounts"]
    refused = driver.call(client.call_dapi, made["id"], "data/balance/get", {"accountID": "unknown"})
    assert (refused.status, refused.body["type"]) == (404, "INVALID_ACCOUNT_ID")
    assert driver.call(client.reveal_token, made["id"], reason="a test")["accessToken"]
    for _ in range(2):
        assert driver.call(client.delink_connection, made["id"])["status"] == "delinked"
    with pytest.raises(StrongroomProblem) as caught:
        driver.call(client.call_dapi, made["id"], "data/accounts/get")
    assert (caught.value.code, caught.value.members["connectionStatus"]) == ("connection_not_active", "delinked")


def test_lists_over_pages(driver: Driver, client: Any) -> None:
    lister = user()
    made = [driver.call(client.create_connection, linked(), client_user_id=lister)["id"] for _ in range(3)]
    found = driver.every(client.list_connections, client_user_id=lister, limit=2)
    assert [connection["id"] for connection in found] == made[::-1]
    assert len(driver.page(client.list_connections, client_user_id=lister, limit=2)["connections"]) == 2


def test_refusals_have_codes(driver: Driver, client: Any) -> None:
    with pytest.raises(StrongroomProblem) as missing:
        driver.call(client.get_connection, "conn_01a1fe64-61ad-7560-a615-31f381b4a65e")
    assert (missing.value.code, missing.value.status) == ("not_found", 404)
    wrong = driver.make(base_url=URL, client_id=CREDENTIALS["client_id"], client_secret="wrong")
    with pytest.raises(StrongroomProblem, match="invalid_client"):
        driver.call(wrong.get_connection_stats)


def test_an_exchange_without_an_answer_is_waited_for(driver: Driver, client: Any) -> None:
    result = linked()
    fault = {"effect": "drop", "path": "auth/ExchangeToken", "when": "before", "times": 1}
    httpx.post(f"{SANDBOX}/sandbox/faults", json={**fault, "connectionID": result["connectionID"]})
    made = driver.call(client.create_connection, result, client_user_id=user())
    if made["status"] == "pending":
        made = driver.call(client.wait_for_connection, made["id"], interval=0.3)
    assert made["status"] == "active"


def test_administration(driver: Driver, client: Any) -> None:
    name = user()
    upstream = {
        "name": name,
        "clientID": "sandbox-client",
        "clientSecret": "sandbox-client-secret",
        "tokenURL": f"{SANDBOX}/oauth/v2/token",
        "baseURL": f"{SANDBOX}/oauth/v2/api",
    }
    driver.call(client.create_upstream, upstream)
    assert driver.call(client.get_upstream_token, name)["token_type"] == "Bearer"
    assert "strongroom-upstream" in driver.call(client.get_through_upstream, name, "things").headers
    assert name in [one["name"] for one in driver.every(client.list_upstreams)]
    driver.call(client.delete_upstream, name)
    many = user()
    made = driver.call(client.create_connection, linked(), client_user_id=many)
    request = {"kind": "invalidate", "reason": "a test", "filter": {"clientUserIDs": [many]}}
    assert "id" in driver.call(client.create_revocation, request)
    ended = driver.call(
        client.wait_for_connection, made["id"], until=lambda found: found["status"] != "active", interval=0.05
    )
    assert ended["status"] in ("revoking", "invalidated")
    receipt = driver.call(client.erase_user, many)
    assert driver.call(client.get_erasure, receipt["id"])["id"] == receipt["id"]
