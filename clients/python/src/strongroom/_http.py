"""What both clients make of httpx's answers and errors."""

from __future__ import annotations

import httpx

from ._core import Answered, Lost, Send
from .errors import StrongroomNetworkError, StrongroomTimeoutError

LONGEST_CONNECT = 10.0


def request_of(client: httpx.Client | httpx.AsyncClient, step: Send) -> httpx.Request:
    timeout = httpx.Timeout(step.timeout, connect=min(step.timeout, LONGEST_CONNECT))
    return client.build_request(step.method, step.url, headers=step.headers, content=step.content, timeout=timeout)


def answered(response: httpx.Response) -> Answered:
    return Answered(response.status_code, response.headers, response.content)


def lost(error: httpx.HTTPError) -> Lost:
    """The httpx error itself is left out, because it holds the request with its token and body."""
    unsent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    if isinstance(error, httpx.TimeoutException):
        return Lost(StrongroomTimeoutError(f"No answer in time ({type(error).__name__})"), unsent)
    return Lost(StrongroomNetworkError(f"Strongroom was not reached, or broke off: {error}"), unsent)
