"""NOT A LOGIN. Whoever picks a name is that user, so that you can try two users on your machine. Your app has a login
already: put it here, and with it what it does against forged requests (CSRF).

What matters to Strongroom is that `clientUserID` comes from here, from the backend's own knowledge of who is logged in,
and never from a field that the browser fills in.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Cookie, Depends, Response

from .errors import Refusal

USERS = ["ada", "grace"]
COOKIE = "example_user"

router = APIRouter()


@router.post("/login")
async def log_in(user: Annotated[str, Body(embed=True)], response: Response) -> dict[str, str]:
    if user not in USERS:
        raise Refusal(400, "invalid_request")
    response.set_cookie(COOKIE, user, httponly=True, samesite="strict")
    return {"user": user}


def user_of(example_user: Annotated[str | None, Cookie()] = None) -> str | None:
    """The user of a request, or None."""
    return example_user if example_user in USERS else None


def logged_in(user: Annotated[str | None, Depends(user_of)]) -> str:
    """Lets only users through, and says who it is."""
    if user is None:
        raise Refusal(401, "not_logged_in")
    return user


User = Annotated[str, Depends(logged_in)]
