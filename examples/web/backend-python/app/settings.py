"""What the backend is told from outside, read once.

`examples/web/start` takes it from the file that `strongroom dev` writes; in production it comes from where your other
secrets come from.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom import AsyncStrongroom

from . import banks as links

STRONGROOM_URL = os.environ["STRONGROOM_URL"]
FRONTEND = os.environ.get("FRONTEND") or Path(__file__).parents[2] / "frontend" / "dist"

# The client may do more; what this backend needs is what it asks for. It never asks for `tokens:read`: balances and
# transactions are read through Strongroom, so that no bank token ever comes here.
SCOPE = "sessions:create connections:read connections:revoke dapi:call"


@dataclass(frozen=True)
class Bank:
    """An app of Strongroom's: how it is called, and what the page opens. Yours probably has one of the two."""

    id: str
    name: str
    calls: Callable[[AsyncStrongroom, str], links.Calls]
    link: dict[str, Any]
    strongroom: AsyncStrongroom


def _bank(id: str, name: str, calls: Callable[[AsyncStrongroom, str], links.Calls], link: dict[str, Any]) -> Bank:
    prefix = f"STRONGROOM_{id.upper()}"
    strongroom = AsyncStrongroom(
        base_url=STRONGROOM_URL,
        client_id=os.environ[f"{prefix}_CLIENT_ID"],
        client_secret=os.environ[f"{prefix}_CLIENT_SECRET"],
        scope=SCOPE,
    )
    return Bank(id, name, calls, link, strongroom)


# Beside `strongroom dev`, its sandbox plays Connect and Link.
_sandbox = os.environ.get("SANDBOX_URL")
_played = {"kind": "sandbox", "url": _sandbox} if _sandbox else None

BANKS = {
    "dapi": _bank(
        "dapi", "Dapi", links.Dapi, _played or {"kind": "dapi", "appKey": os.environ.get("DAPI_APP_KEY", "")}
    ),
    "plaid": _bank("plaid", "Plaid", links.Plaid, _played or {"kind": "plaid"}),
}
