"""What can go wrong. Messages and attributes hold neither tokens nor bodies of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class StrongroomError(Exception):
    """What every error of this package is."""


class StrongroomNetworkError(StrongroomError):
    """No usable answer came: no connection, one that broke, or a redirect. What was asked for may have been done."""


class StrongroomTimeoutError(StrongroomNetworkError):
    """No answer came in time. What was asked for may have been done."""


class StrongroomProblem(StrongroomError):
    """A refusal: a problem document (RFC 9457), or an OAuth error (RFC 6749, section 5.2) with its `error` as `code`.

    Decide by `code`. An answer of something else, such as a proxy, has the code `unrecognized_answer`.
    """

    def __init__(self, status: int, members: Mapping[str, Any], retry_after: int | None = None) -> None:
        self.status = status
        """The HTTP status."""
        self.members = dict(members)
        """All members of the document: `id`, `failure`, `connectionStatus`, `field`, …"""
        self.retry_after = retry_after
        """Seconds after which to ask again, if the answer says so."""
        self.code = self._text("code") or self._text("error") or "unrecognized_answer"
        """Such as `connection_not_active`; `/problems/{code}` says what it means."""
        self.title = self._text("title") or self.code
        self.detail = (
            self._text("detail") or self._text("error_description") or f"The answer has the status {status}."
        )
        """For developers, not for users."""
        self.request_id = self._text("requestID")
        """By which Strongroom's operator finds the rest."""
        super().__init__(f"{self.code} ({status}): {self.detail}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.members, self.retry_after)

    @property
    def is_own(self) -> bool:
        """Whether Strongroom itself wrote it, rather than something between."""
        return self._text("code") is not None

    def _text(self, name: str) -> str | None:
        value = self.members.get(name)
        return value if isinstance(value, str) else None
