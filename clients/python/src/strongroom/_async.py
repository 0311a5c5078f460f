"""The async client."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import replace
from functools import wraps
from typing import Any, Generic, TypeVar

import anyio
import httpx
from typing_extensions import Concatenate, ParamSpec, Self

from . import _calls as calls
from . import types as t
from ._core import Call, Conversation, ListCall, NeedToken, Pause, Send, Settings, Tokens, checked_base, conversation, waiting
from ._http import answered, lost, request_of
from .errors import StrongroomError

P = ParamSpec("P")
T = TypeVar("T")
Page = TypeVar("Page")
Item = TypeVar("Item")


class AsyncListing(Generic[Page, Item]):
    """A list: `async for` it for every item of every page, or `await` it for one page."""

    def __init__(self, client: AsyncStrongroom, call: ListCall[Page, Item]) -> None:
        self._client, self._call = client, call

    def __await__(self) -> Generator[Any, None, Page]:
        return self.page().__await__()

    async def page(self) -> Page:
        """One page, with `nextCursor`."""
        return await self._client._send(self._call.page(None))

    async def pages(self) -> AsyncIterator[Page]:
        """The pages, one request each."""
        cursor: str | None = None
        while True:
            page = await self._client._send(self._call.page(cursor))
            yield page
            cursor = self._call.after(page)
            if cursor is None:
                return

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for item in self._call.items(page):
                yield item


def _method(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncStrongroom, P], Awaitable[T]]:
    @wraps(build)
    async def method(self: AsyncStrongroom, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(build(*args, **kwargs))

    return method


def _listing(
    build: Callable[P, ListCall[Page, Item]],
) -> Callable[Concatenate[AsyncStrongroom, P], AsyncListing[Page, Item]]:
    @wraps(build)
    def method(self: AsyncStrongroom, /, *args: P.args, **kwargs: P.kwargs) -> AsyncListing[Page, Item]:
        return AsyncListing(self, build(*args, **kwargs))

    return method


class AsyncStrongroom:
    """A client of Strongroom. Its methods are named as the operations of the OpenAPI document.

    `client_id` and `client_secret` are for backends; a connect session's token in `session` does what a page may.
    `timeout` is how many seconds an attempt may be silent, `relay_timeout` the same for calls that are passed on, which
    may wait for their turn first. `retries` is how many times a request that is safe to repeat is repeated. `http_client`
    replaces the connections of its own, for instance for a proxy or certificates; it is not closed here.
    """

    def __init__(
        self,
        *,
        base_url: str,
        client_id: str | None = None,
        client_secret: str | None = None,
        scope: str | None = None,
        session: str | None = None,
        timeout: float = 30.0,
        relay_timeout: float = 300.0,
        retries: int = 4,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._settings = Settings(checked_base(base_url), timeout, relay_timeout, retries)
        credentials = (client_id, client_secret, scope) if client_id and client_secret else None
        if not session and credentials is None:
            raise ValueError("client_id and client_secret, or session, are missing")
        self._tokens = Tokens(self._settings, None if session else credentials, session or None)
        self._lock = anyio.Lock()
        self._http = http_client or httpx.AsyncClient(follow_redirects=False)
        self._owned = http_client is None

    def __repr__(self) -> str:
        return f"AsyncStrongroom({self._settings.base})"

    def with_options(
        self, *, timeout: float | None = None, relay_timeout: float | None = None, retries: int | None = None
    ) -> Self:
        """The same client, its token and connections included, with other options."""
        other = copy.copy(self)
        other._owned = False
        now = self._settings
        other._settings = replace(
            now,
            timeout=now.timeout if timeout is None else timeout,
            relay_timeout=now.relay_timeout if relay_timeout is None else relay_timeout,
            retries=now.retries if retries is None else retries,
        )
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections, unless they are the caller's own."""
        if self._owned:
            await self._http.aclose()

    create_connect_session = _method(calls.create_connect_session)
    create_connection = _method(calls.create_connection)
    import_connection = _method(calls.import_connection)
    list_connections = _listing(calls.list_connections)
    get_connection = _method(calls.get_connection)
    reveal_token = _method(calls.reveal_token)
    release_token = _method(calls.release_token)
    delink_connection = _method(calls.delink_connection)
    invalidate_connection = _method(calls.invalidate_connection)
    clear_attention = _method(calls.clear_attention)
    call_dapi = _method(calls.call_dapi)
    call_plaid = _method(calls.call_plaid)
    create_plaid_link_token = _method(calls.create_plaid_link_token)
    erase_user = _method(calls.erase_user)
    get_erasure = _method(calls.get_erasure)
    list_events = _method(calls.list_events)
    create_webhook = _method(calls.create_webhook)
    list_webhooks = _method(calls.list_webhooks)
    get_webhook = _method(calls.get_webhook)
    update_webhook = _method(calls.update_webhook)
    delete_webhook = _method(calls.delete_webhook)
    create_webhook_secret = _method(calls.create_webhook_secret)
    delete_webhook_secret = _method(calls.delete_webhook_secret)
    test_webhook = _method(calls.test_webhook)
    replay_webhook = _method(calls.replay_webhook)
    list_webhook_deliveries = _listing(calls.list_webhook_deliveries)
    get_upstream_token = _method(calls.get_upstream_token)
    get_through_upstream = _method(calls.get_through_upstream)
    delete_through_upstream = _method(calls.delete_through_upstream)
    post_through_upstream = _method(calls.post_through_upstream)
    put_through_upstream = _method(calls.put_through_upstream)
    patch_through_upstream = _method(calls.patch_through_upstream)
    create_client = _method(calls.create_client)
    list_clients = _listing(calls.list_clients)
    get_client = _method(calls.get_client)
    update_client = _method(calls.update_client)
    delete_client = _method(calls.delete_client)
    create_client_secret = _method(calls.create_client_secret)
    delete_client_secret = _method(calls.delete_client_secret)
    search_connections = _listing(calls.search_connections)
    get_connection_history = _method(calls.get_connection_history)
    get_connection_stats = _method(calls.get_connection_stats)
    create_revocation = _method(calls.create_revocation)
    list_revocations = _listing(calls.list_revocations)
    get_revocation = _method(calls.get_revocation)
    pause_revocation = _method(calls.pause_revocation)
    resume_revocation = _method(calls.resume_revocation)
    cancel_revocation = _method(calls.cancel_revocation)
    list_approvals = _listing(calls.list_approvals)
    get_approval = _method(calls.get_approval)
    withdraw_approval = _method(calls.withdraw_approval)
    create_upstream = _method(calls.create_upstream)
    list_upstreams = _listing(calls.list_upstreams)
    get_upstream = _method(calls.get_upstream)
    update_upstream = _method(calls.update_upstream)
    delete_upstream = _method(calls.delete_upstream)
    list_audit_events = _listing(calls.list_audit_events)
    get_audit_checkpoint = _method(calls.get_audit_checkpoint)

    async def wait_for_connection(
        self,
        id: str,
        *,
        until: Callable[[t.Connection], bool] | None = None,
        within: float = 300.0,
        interval: float = 2.0,
    ) -> t.Connection:
        """Looks at a connection until it is no longer `pending`, or as `until` wants it, and returns it with the status
        that it then has. Raises `StrongroomTimeoutError` after `within` seconds. `interval` is the first wait, in
        seconds; it grows by half each time, up to 15."""
        call = calls.get_connection(id)
        found: t.Connection = await self._drive(
            waiting(self._settings, self._tokens, call, until, within, interval)  # type: ignore[arg-type]
        )
        return found

    async def _send(self, call: Call[T]) -> T:
        return await self._drive(conversation(self._settings, self._tokens, call))

    async def _drive(self, steps: Conversation[T]) -> T:
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Send):
                outcome = await self._perform(step)
            elif isinstance(step, Pause):
                await anyio.sleep(step.seconds)
                outcome = None
            elif isinstance(step, NeedToken):
                outcome = await self._token()

    async def _perform(self, step: Send) -> Any:
        try:
            return answered(await self._http.send(request_of(self._http, step), follow_redirects=False))
        except httpx.HTTPError as error:
            return lost(error)

    async def _token(self) -> str | StrongroomError:
        """One request at a time; who waits for it shares its outcome. If its caller is cancelled, the next one makes
        it."""
        token = self._tokens.current()
        if token is not None:
            return token
        rounds = self._tokens.rounds
        async with self._lock:
            found = self._tokens.found_since(rounds)
            return await self._drive(self._tokens.request()) if found is None else found
