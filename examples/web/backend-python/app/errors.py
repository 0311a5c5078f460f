"""What a page is told if something does not work: `{"code": …}`, for which the page has the words. Nothing of Strongroom's
`detail` goes to it: that is written for developers, and goes into the log.
"""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from strongroom import StrongroomNetworkError, StrongroomProblem

log = logging.getLogger("uvicorn.error")


class Refusal(Exception):
    """A refusal of this backend's own."""

    def __init__(self, status: int, code: str, **more: Any) -> None:
        super().__init__(code)
        self.status, self.code, self.more = status, code, more


# Strongroom's refusals that mean something to a user. Every other one is a defect, here or in the configuration.
TOLD = {
    "connection_needs_attention",  # 409: the user has to log in at the bank again before anything is called
    "connection_not_active",  # 409: it was disconnected, perhaps in another tab
    "not_found",  # 404
    "too_many_requests",  # 429, with Retry-After: many calls wait for this connection
    "upstream_failed",  # 502: no usable answer from the bank link. What was asked for may have been done
    "upstream_timeout",  # 504: the same
}


def refusal_of(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, StrongroomProblem):
        more = {} if error.retry_after is None else {"retryAfter": error.retry_after}
        if error.code in TOLD:
            return Refusal(error.status, error.code, **more)
        # By the request's id Strongroom's operator finds the rest.
        log.error("Strongroom refused: %s (request %s)", error, error.request_id)
        return Refusal(503, "unavailable", **more) if error.status == 503 else Refusal(500, "internal")
    # The client has repeated by now what may be repeated.
    if isinstance(error, StrongroomNetworkError):
        log.error("Strongroom was not reached: %s", error)
        return Refusal(503, "unavailable")
    # FastAPI's own, such as a body that is not JSON.
    if isinstance(error, RequestValidationError):
        return Refusal(400, "invalid_request")
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, "not_found" if error.status_code == 404 else "invalid_request")
    # The server logs it, with its trace.
    return Refusal(500, "internal")


async def answer_error(_request: Request, error: Exception) -> JSONResponse:
    refusal = refusal_of(error)
    return JSONResponse({"code": refusal.code, **refusal.more}, refusal.status)


def install(app: FastAPI) -> None:
    kinds = [Refusal, StrongroomProblem, StrongroomNetworkError, RequestValidationError, HTTPException, Exception]
    for kind in kinds:
        app.add_exception_handler(kind, answer_error)
