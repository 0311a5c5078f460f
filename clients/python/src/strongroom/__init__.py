"""A client of Strongroom, sync and async.

    with Strongroom(base_url=…, client_id=…, client_secret=…) as strongroom:
        for connection in strongroom.list_connections(client_user_id="ada", status="active"):
            print(strongroom.call_dapi(connection["id"], "data/accounts/get").body)
"""

from . import types
from ._async import AsyncListing, AsyncStrongroom
from ._calls import RelayAnswer, UpstreamAnswer
from ._sync import Listing, Strongroom
from .errors import StrongroomError, StrongroomNetworkError, StrongroomProblem, StrongroomTimeoutError

__all__ = [
    "AsyncListing",
    "AsyncStrongroom",
    "Listing",
    "RelayAnswer",
    "Strongroom",
    "StrongroomError",
    "StrongroomNetworkError",
    "StrongroomProblem",
    "StrongroomTimeoutError",
    "UpstreamAnswer",
    "types",
]
__version__ = "0.1.0"
