from __future__ import annotations

import json
import pickle
import socket
import threading
import time
import traceback
from typing import Any

import pytest
from conftest import Driver, Script, dropped, half, json_answer, problem, silent

from strongroom import Strongroom, StrongroomNetworkError, StrongroomProblem, StrongroomTimeoutError

SECRET = "a-client-secret-that-must-not-show"
RESULT = {"success": True, "accessCode": "the-code", "userSecret": "the-user-secret", "connectionID": "login"}
ACTIVE = {"id": "conn_1", "status": "active", "clientUserID": "ada", "connectionID": "login"}
PENDING = {**ACTIVE, "status": "pending"}
FROM_DAPI = {"strongroom_upstream": "dapi"}


@pytest.fixture
def made(driver: Driver, script: Script) -> Any:
    def make(**more: Any) -> Any:
        return driver.make(**{"base_url": script.url, "client_id": "id", "client_secret": SECRET, **more})

    return make


@pytest.fixture
def client(made: Any) -> Any:
    return made()


# The token


def test_many_requests_at_once_ask_for_one_token(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [json_answer(200, ACTIVE)] * 11
    for started in [driver.start(client.get_connection, "conn_1") for _ in range(10)]:
        started.result(30)
    driver.call(client.get_connection, "conn_1")
    assert script.tokens == 1
    assert script.asked[0].headers["authorization"] == "Bearer token-1"


def test_a_token_is_fetched_anew_before_it_ends(
    driver: Driver, script: Script, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.expires_in = 100
    script.answers = [json_answer(200, ACTIVE)] * 3
    now = time.time()
    for passed, tokens in [(0, 1), (89, 1), (91, 2)]:
        monkeypatch.setattr("strongroom._core.time.time", lambda passed=passed: now + passed)
        driver.call(client.get_connection, "conn_1")
        assert script.tokens == tokens


def test_a_token_is_fetched_anew_by_one_of_all_who_were_refused(driver: Driver, script: Script, client: Any) -> None:
    def accepting_the_second(handler: Any) -> None:
        accepted = handler.headers["authorization"] == "Bearer token-2"
        (json_answer(200, ACTIVE) if accepted else problem(401, "unauthorized"))(handler)

    script.answers = [json_answer(200, ACTIVE)] + [accepting_the_second] * 12
    driver.call(client.get_connection, "conn_1")
    for started in [driver.start(client.get_connection, "conn_1") for _ in range(6)]:
        assert started.result(30)["status"] == "active"
    assert script.tokens == 2


def test_a_second_refusal_is_final(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [problem(401, "unauthorized")] * 2
    with pytest.raises(StrongroomProblem, match="unauthorized"):
        driver.call(client.get_connection, "conn_1")
    assert (script.tokens, len(script.asked)) == (2, 2)


def test_who_waits_for_a_token_shares_its_failure(driver: Driver, script: Script, made: Any) -> None:
    gate = threading.Event()

    def late(handler: Any) -> None:
        gate.wait(10)
        json_answer(401, {"error": "invalid_client", "error_description": "No."})(handler)

    script.token_answers = [late]
    client = made(retries=0)
    started = [driver.start(client.get_connection, "conn_1") for _ in range(5)]
    while not script.tokens:
        time.sleep(0.01)
    # The others have to be waiting.
    time.sleep(0.3)
    gate.set()
    for one in started:
        with pytest.raises(StrongroomProblem) as caught:
            one.result(30)
        assert (caught.value.code, caught.value.status, caught.value.detail) == ("invalid_client", 401, "No.")
    assert script.tokens == 1


def test_a_token_is_asked_for_again_after_a_503_for_a_relayed_call_too(
    driver: Driver, script: Script, client: Any
) -> None:
    script.token_answers = [json_answer(503, {"error": "temporarily_unavailable"})]
    script.answers = [json_answer(200, {"success": True}, **FROM_DAPI)]
    assert driver.call(client.call_dapi, "conn_1", "data/accounts/get").ok
    assert script.tokens == 2


def test_a_connect_session_needs_no_credentials(driver: Driver, script: Script) -> None:
    client = driver.make(base_url=script.url, session="cs_1")
    script.answers = [json_answer(201, ACTIVE), problem(401, "unauthorized")]
    driver.call(client.create_connection, RESULT)
    assert script.asked[0].headers["authorization"] == "Bearer cs_1"
    with pytest.raises(StrongroomProblem):
        driver.call(client.get_connection, "conn_1")
    assert (script.tokens, len(script.asked)) == (0, 2)


# Repeats


@pytest.mark.parametrize(
    "fault", [dropped, half, problem(503, "unavailable", {"retry_after": "0"}), json_answer(502, b"<html>")]
)
def test_a_result_is_handed_in_again(driver: Driver, script: Script, client: Any, fault: Any) -> None:
    script.answers = [fault, json_answer(201, ACTIVE)]
    assert driver.call(client.create_connection, RESULT, client_user_id="ada")["status"] == "active"
    assert [json.loads(asked.body) for asked in script.asked] == [{**RESULT, "clientUserID": "ada"}] * 2


def test_a_silence_is_followed_by_another_attempt(driver: Driver, script: Script, made: Any) -> None:
    script.answers = [silent, json_answer(200, ACTIVE)]
    assert driver.call(made(timeout=0.3).get_connection, "conn_1")["id"] == "conn_1"


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422, 500, 502, 504])
def test_refusals_are_final(driver: Driver, script: Script, client: Any, status: int) -> None:
    script.answers = [problem(status, "some_code")]
    with pytest.raises(StrongroomProblem):
        driver.call(client.create_connection, RESULT)
    assert len(script.asked) == 1


def test_retry_after_is_waited_for(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [problem(429, "too_many_requests", {"retry_after": "1"}), json_answer(200, ACTIVE)]
    began = time.monotonic()
    driver.call(client.get_connection, "conn_1")
    assert time.monotonic() - began > 0.99


def test_a_long_retry_after_and_a_429_without_one_are_the_callers(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [problem(503, "unavailable", {"retry_after": "3600"}), problem(429, "too_many_requests")]
    with pytest.raises(StrongroomProblem) as caught:
        driver.call(client.get_connection, "conn_1")
    assert caught.value.retry_after == 3600
    with pytest.raises(StrongroomProblem):
        driver.call(client.create_connection, RESULT)
    assert len(script.asked) == 2


def test_repeats_end(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [dropped, dropped, dropped, json_answer(200, ACTIVE)]
    with pytest.raises(StrongroomNetworkError):
        driver.call(client.with_options(retries=2).get_connection, "conn_1")
    assert (len(script.asked), script.tokens) == (3, 1)


@pytest.mark.parametrize(
    "fault", [dropped, half, problem(503, "unavailable", {"retry_after": "0"}), json_answer(504, {}), silent]
)
def test_a_relayed_call_that_may_have_arrived_is_not_repeated(
    driver: Driver, script: Script, made: Any, fault: Any
) -> None:
    script.answers = [fault, json_answer(200, {}, **FROM_DAPI)]
    with pytest.raises((StrongroomNetworkError, StrongroomProblem)):
        driver.call(made(relay_timeout=0.5).call_dapi, "conn_1", "payment/transfer/create", {"amount": 1})
    assert len(script.asked) == 1


def test_what_makes_something_new_is_not_repeated(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [dropped, json_answer(201, {})]
    with pytest.raises(StrongroomNetworkError):
        driver.call(client.create_client, {"name": "n", "scopes": []})
    assert len(script.asked) == 1


def test_a_relayed_call_that_was_refused_beforehand_is_repeated(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [
        problem(429, "too_many_requests", {"retry_after": "0"}),
        problem(401, "unauthorized"),
        json_answer(200, {"success": True}, **FROM_DAPI),
    ]
    assert driver.call(client.call_dapi, "conn_1", "data/accounts/get").body == {"success": True}


def test_a_relayed_call_without_a_connection_is_repeated(driver: Driver, made: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = driver.make(base_url=f"http://127.0.0.1:{port}", session="cs_1", retries=3)
    began = time.monotonic()
    with pytest.raises(StrongroomNetworkError):
        driver.call(client.call_dapi, "conn_1", "payment/transfer/create")
    # Waits of 125, 250 and 500 ms were in between.
    assert time.monotonic() - began > 0.8


def test_a_bulk_revocation_keeps_its_idempotency_key(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [dropped, json_answer(202, {"id": "rev_1"})]
    driver.call(client.create_revocation, {"kind": "invalidate", "reason": "r", "filter": {"all": True}})
    keys = {asked.headers["idempotency-key"] for asked in script.asked}
    assert len(keys) == 1 and None not in keys


# Calls that are passed on


def test_a_relayed_answer_comes_as_it_is_refusals_and_401_too(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [
        json_answer(404, {"type": "INVALID_ACCOUNT_ID"}, **FROM_DAPI),
        json_answer(401, {}, **FROM_DAPI),
        json_answer(503, {}, retry_after="7", **FROM_DAPI),
        json_answer(200, b'{"amount": 12345678901234567890.10}', **FROM_DAPI),
    ]
    refused = driver.call(client.call_dapi, "conn_1", "/data/balance/get", {"accountID": "x"})
    assert (refused.status, refused.ok, refused.body) == (404, False, {"type": "INVALID_ACCOUNT_ID"})
    assert driver.call(client.call_plaid, "conn_1", "accounts/get").status == 401
    assert driver.call(client.call_dapi, "conn_1", "data/accounts/get").retry_after == 7
    exact = driver.call(client.call_dapi, "conn_1", "data/accounts/get", '{"n": 0.10000000000000000001}')
    assert exact.content == b'{"amount": 12345678901234567890.10}'
    assert script.asked[3].body == '{"n": 0.10000000000000000001}'
    assert (script.tokens, len(script.asked)) == (1, 4)
    assert script.asked[0].path == "/v1/connections/conn_1/dapi/data/balance/get"
    assert script.asked[1].path == "/v1/connections/conn_1/plaid/accounts/get"


def test_a_path_cannot_lead_elsewhere(driver: Driver, script: Script, client: Any) -> None:
    for path in ["../delink", "data/../../token", "a//b", "", "."]:
        with pytest.raises(ValueError):
            driver.call(client.call_dapi, "conn_1", path)
    for method in [client.get_connection, client.erase_user]:
        for value in ["", ".", ".."]:
            with pytest.raises(ValueError):
                driver.call(method, value)
    script.answers = [json_answer(202, {})]
    driver.call(client.erase_user, "a/b c?d#e")
    assert script.asked[0].path == "/v1/users/a%2Fb%20c%3Fd%23e"


def test_an_upstreams_answer_comes_as_it_is(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [json_answer(302, b"\x00\xff", location="/x", strongroom_upstream="plain")]
    answer = driver.call(
        client.put_through_upstream, "plain", "files/1", b"\x01", query={"page": 2}, headers={"Content-Type": "image/png"}
    )
    assert (answer.status, answer.headers["location"], answer.content) == (302, "/x", b"\x00\xff")
    assert script.asked[0].path == "/v1/upstreams/plain/proxy/files/1?page=2"
    assert script.asked[0].headers.get_all("content-type") == ["image/png"]


# Lists and waits


def test_a_list_is_a_page_or_everything(driver: Driver, script: Script, client: Any) -> None:
    first = json_answer(200, {"connections": [ACTIVE, {**ACTIVE, "id": "conn_2"}], "nextCursor": "c/2"})
    second = json_answer(200, {"connections": [{**ACTIVE, "id": "conn_3"}], "nextCursor": None})
    script.answers = [first, first, second]
    assert driver.page(client.list_connections, client_user_id="a&b", attention=True)["nextCursor"] == "c/2"
    every = driver.every(client.list_connections, client_user_id="a&b", limit=2)
    assert [connection["id"] for connection in every] == ["conn_1", "conn_2", "conn_3"]
    assert script.asked[0].path == "/v1/connections?clientUserID=a%26b&attention=true"
    assert script.asked[2].path == "/v1/connections?clientUserID=a%26b&limit=2&cursor=c%2F2"


def test_waiting_ends_with_whatever_it_became(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [json_answer(200, PENDING)] * 2 + [json_answer(200, {**ACTIVE, "status": "rejected"})]
    assert driver.call(client.wait_for_connection, "conn_1", interval=0.01)["status"] == "rejected"


def test_waiting_ends_after_its_time(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [json_answer(200, PENDING)] * 100
    with pytest.raises(StrongroomTimeoutError, match="still pending"):
        driver.call(client.wait_for_connection, "conn_1", interval=0.01, within=0.1)


# Secrets and options


def test_no_secret_shows(driver: Driver, script: Script, client: Any) -> None:
    script.answers = [problem(422, "code_rejected", failure={"type": "X"}), dropped]
    for _ in range(2):
        try:
            driver.call(client.with_options(retries=0).create_connection, RESULT)
        except Exception as error:
            attributes = repr({name: repr(value) for name, value in vars(error).items()})
            chain = [repr(error.__cause__), repr(vars(error.__cause__) if error.__cause__ else None)]
            shown = [str(error), repr(error), attributes, *chain, *traceback.format_exception(error)]
        assert not [text for text in shown if any(s in text for s in ("must-not", "the-code", "the-user-s", "token-1"))]
    for text in [repr(client), str(client), f"{client}", repr(vars(client)), repr(vars(client._tokens))]:
        assert SECRET not in text and "token-1" not in text
    assert script.url in repr(client)


def test_a_problem_can_be_pickled(script: Script) -> None:
    error = StrongroomProblem(409, {"code": "connection_not_active", "connectionStatus": "delinked"}, 3)
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, again.status, again.retry_after, again.members) == (error.code, 409, 3, error.members)


def test_a_redirect_is_not_followed(driver: Driver, script: Script, made: Any) -> None:
    script.answers = [json_answer(307, {}, location=f"{script.url}/elsewhere")]
    with pytest.raises(StrongroomNetworkError, match="redirect"):
        driver.call(made(retries=0).create_connection, RESULT)
    assert len(script.asked) == 1


@pytest.mark.parametrize("url", ["", "strongroom", "ftp://x", "http://a:b@x", "http://x?y", "http://x/#z"])
def test_a_base_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Strongroom(base_url=url, session="cs_1")


def test_missing_credentials_are_refused() -> None:
    with pytest.raises(ValueError):
        Strongroom(base_url="http://x", client_id="id", client_secret="")
