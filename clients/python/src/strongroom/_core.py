"""What both clients do, without doing it: generators that yield steps, and are sent what came of them.

A driver performs each step with its own kind of input and output: `Send` with `Answered` or `Lost`, `Pause` with a
sleep, `NeedToken` with a token or the error that came instead.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar, Union
from urllib.parse import quote, urlencode, urlsplit

from .errors import StrongroomError, StrongroomNetworkError, StrongroomProblem, StrongroomTimeoutError

T = TypeVar("T")
Page = TypeVar("Page")
Item = TypeVar("Item")

FIRST_WAIT = 0.25
LONGEST_WAIT = 8.0
LONGEST_RETRY_AFTER = 60
"""A longer `Retry-After`, in seconds, is the caller's to wait for."""
MARGIN_SHARE = 0.1
LONGEST_MARGIN = 60.0
LONGEST_INTERVAL = 15.0


class Secret:
    """Text that does not show."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def expose(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "(secret)"


@dataclass
class Send:
    """A request to be made once."""

    method: str
    url: str
    timeout: float
    headers: dict[str, str] = field(repr=False)
    content: bytes | None = field(repr=False)


@dataclass
class Pause:
    seconds: float


@dataclass
class NeedToken:
    pass


@dataclass
class Answered:
    status: int
    headers: Mapping[str, str]
    """Found by their names in lower case."""
    content: bytes = field(repr=False)


@dataclass
class Lost:
    """No answer, or not all of it."""

    error: StrongroomNetworkError
    unsent: bool
    """Whether the request provably never left."""


Step = Union[Send, Pause, NeedToken]
Conversation = Generator[Step, Any, T]


@dataclass
class Call(Generic[T]):
    """A request as the methods make it."""

    method: str
    path: str
    decode: Callable[[Answered], T]
    repeatable: bool
    """Whether a second request does no more than the first. If not, only one that did not arrive is repeated."""
    relayed: bool = False
    """Whether the answer may be another API's, which `Strongroom-Upstream` announces."""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class ListCall(Generic[Page, Item]):
    """A list, page by page."""

    page: Callable[[str | None], Call[Page]]
    items: Callable[[Page], list[Item]]

    def after(self, page: Page) -> str | None:
        """The cursor of the page after this one."""
        cursor: str | None = page.get("nextCursor")  # type: ignore[attr-defined]
        return cursor


@dataclass
class Settings:
    base: str
    timeout: float
    relay_timeout: float
    retries: int


class Tokens:
    """The access token, or a connect session's. A driver holds a lock around `request`."""

    def __init__(self, settings: Settings, credentials: tuple[str, str, str | None] | None, fixed: str | None) -> None:
        self._settings = settings
        self._fixed = Secret(fixed) if fixed is not None else None
        self._credentials = (credentials[0], Secret(credentials[1]), credentials[2]) if credentials else None
        self._current: tuple[Secret, float] | None = None
        self._failure: StrongroomError | None = None
        self.rounds = 0
        """How many requests for a token have ended."""

    def current(self) -> str | None:
        if self._fixed:
            return self._fixed.expose()
        if self._current and time.time() < self._current[1]:
            return self._current[0].expose()
        return None

    def refused(self, token: str) -> bool:
        """Drops the token if it is this one; whether another can be had."""
        if self._current and self._current[0].expose() == token:
            self._current = None
        return self._fixed is None

    def found_since(self, rounds: int) -> str | StrongroomError | None:
        """What a caller shares who has waited since then: a token, or the failure of a request that ended meanwhile."""
        token = self.current()
        if token is not None:
            return token
        return self._failure if self.rounds > rounds else None

    def request(self) -> Conversation[str | StrongroomError]:
        found: str | StrongroomError
        try:
            found = yield from self._request()
        except StrongroomError as error:
            found = error
        # A caller who is cancelled does not get here, so that the next one asks.
        self._failure = found if isinstance(found, StrongroomError) else None
        self.rounds += 1
        return found

    def _request(self) -> Conversation[str]:
        assert self._credentials is not None
        client_id, secret, scope = self._credentials
        began = time.time()
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope is not None else {})
        # Both halves are form-encoded first (RFC 6749, section 2.3.1).
        basic = f"{quote(client_id, safe='')}:{quote(secret.expose(), safe='')}"
        headers = {
            "accept": "application/json",
            "authorization": f"Basic {_base64(basic)}",
            "content-type": "application/x-www-form-urlencoded",
        }
        url = f"{self._settings.base}/oauth2/token"
        outcome = yield Send("POST", url, self._settings.timeout, headers, urlencode(form).encode())
        if isinstance(outcome, Lost):
            raise outcome.error
        if not 200 <= outcome.status < 300:
            raise problem_of(outcome)
        members = _object(outcome.content)
        token, seconds = members.get("access_token"), members.get("expires_in")
        if not isinstance(token, str) or not token:
            raise StrongroomProblem(outcome.status, {"detail": "The token endpoint's answer holds no token."})
        life = float(seconds) if isinstance(seconds, (int, float)) and seconds > 0 else 60.0
        self._current = (Secret(token), began + life - min(life * MARGIN_SHARE, LONGEST_MARGIN))
        return token


def conversation(settings: Settings, tokens: Tokens, call: Call[T]) -> Conversation[T]:
    """Sends a call, and again if that is safe and promises anything."""
    return call.decode((yield from answered(settings, tokens, call)))


def answered(settings: Settings, tokens: Tokens, call: Call[Any]) -> Conversation[Answered]:
    """The answer to a call: 2xx, or of whatever status if it is another API's."""
    renewed = False
    attempt = 1
    while True:
        outcome = yield from _attempt(settings, tokens, call)
        if isinstance(outcome, Answered):
            return outcome
        if outcome.token_refused and not renewed:
            # Refused before anything was done, so that even a relayed call may be sent again.
            renewed = True
            continue
        wait = _wait_before(attempt, settings.retries, call, outcome)
        if wait is None:
            raise outcome.error
        yield Pause(wait)
        attempt += 1


@dataclass
class _Failure:
    error: StrongroomError
    beforehand: bool = False
    """Whether the call itself provably never left."""
    token_refused: bool = False


def _attempt(settings: Settings, tokens: Tokens, call: Call[Any]) -> Conversation[Answered | _Failure]:
    token = yield NeedToken()
    if isinstance(token, StrongroomError):
        return _Failure(token, beforehand=True)
    headers = {"accept": "application/json"} | {name.lower(): value for name, value in call.headers.items()}
    headers["authorization"] = f"Bearer {token}"
    content = _content(call.body)
    if content is not None:
        headers.setdefault("content-type", "application/json")
    timeout = settings.relay_timeout if call.relayed else settings.timeout
    outcome = yield Send(call.method, settings.base + call.path + _query(call.query), timeout, headers, content)
    if isinstance(outcome, Lost):
        return _Failure(outcome.error, beforehand=outcome.unsent)
    assert isinstance(outcome, Answered)
    if 200 <= outcome.status < 300 or (call.relayed and "strongroom-upstream" in outcome.headers):
        return outcome
    if 300 <= outcome.status < 400:
        # Following it would carry token and body to where nobody sent them.
        return _Failure(StrongroomNetworkError("The answer is a redirect, which is not followed; is base_url right?"))
    refused = outcome.status == 401 and tokens.refused(token)
    return _Failure(problem_of(outcome), token_refused=refused)


def _wait_before(attempt: int, retries: int, call: Call[Any], failure: _Failure) -> float | None:
    """Seconds to wait before the call is sent again, or nothing if it is not."""
    if attempt > retries or not _promising(call, failure):
        return None
    retry_after = failure.error.retry_after if isinstance(failure.error, StrongroomProblem) else None
    if retry_after is not None:
        # Clients that were all told the same second do not come back in the same millisecond.
        return retry_after + random.random() * FIRST_WAIT if retry_after <= LONGEST_RETRY_AFTER else None
    longest: float = min(FIRST_WAIT * 2.0 ** (attempt - 1), LONGEST_WAIT)
    return longest * (0.5 + random.random() / 2)


def _promising(call: Call[Any], failure: _Failure) -> bool:
    error, repeatable = failure.error, call.repeatable or failure.beforehand
    if not isinstance(error, StrongroomProblem):
        return repeatable
    if error.status == 429:
        # Refused before anything was done. Without a time it is not about load: asking again brings the same.
        return error.retry_after is not None
    # Strongroom's own 500, 502 and 504 are what came of the request; a gateway's say nothing about it.
    return repeatable and (error.status == 503 or (error.status in (500, 502, 504) and not error.is_own))


def waiting(
    settings: Settings,
    tokens: Tokens,
    call: Call[dict[str, Any]],
    until: Callable[[Any], bool] | None,
    within: float,
    interval: float,
) -> Conversation[Any]:
    """Looks at a connection until it is as wanted."""
    end = time.monotonic() + within
    while True:
        answer = yield from answered(settings, tokens, call)
        connection = call.decode(answer)
        if until(connection) if until else connection["status"] != "pending":
            return connection
        left = end - time.monotonic()
        if left <= 0:
            raise StrongroomTimeoutError(f"{connection['id']} is still {connection['status']} after {within} s")
        yield Pause(min(max(interval, retry_after_of(answer.headers) or 0), left))
        interval = min(interval * 1.5, LONGEST_INTERVAL)


def checked_base(text: str) -> str:
    """Checks the base URL, and takes its trailing slashes off."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("base_url is not an http or https URL")
    if url.username or url.password or url.query or url.fragment:
        raise ValueError("base_url has credentials, a query or a fragment")
    return text.rstrip("/")


def segment(value: str) -> str:
    """Encodes one segment of a path. What a URL would resolve away would lead to another resource."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        raise ValueError(f"{value!r} cannot be part of a path")
    return quote(value, safe="")


def segments(path: str) -> str:
    """Encodes a path of several segments."""
    return "/".join(segment(part) for part in path.removeprefix("/").split("/"))


def retry_after_of(headers: Mapping[str, str]) -> int | None:
    """The seconds of `Retry-After`, which has them or a date (RFC 9110, section 10.2.3)."""
    value = (headers.get("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return int(value)
    try:
        return max(0, round(parsedate_to_datetime(value).timestamp() - time.time() + 0.5))
    except (TypeError, ValueError):
        return None


def problem_of(answer: Answered) -> StrongroomProblem:
    return StrongroomProblem(answer.status, _object(answer.content), retry_after_of(answer.headers))


def parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise StrongroomError("The answer is not JSON; is base_url right?") from None


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _content(body: Any) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _query(query: Mapping[str, Any]) -> str:
    given = {name: _text(value) for name, value in query.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
