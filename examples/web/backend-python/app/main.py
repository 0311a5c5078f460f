"""The example's backend: serves the page, knows who is logged in, and holds what no page may hold. Run by `uvicorn app.main:app`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles

from . import connections, errors, users
from .settings import BANKS, FRONTEND, STRONGROOM_URL

STRONGROOM_ORIGIN = "{0.scheme}://{0.netloc}".format(urlsplit(STRONGROOM_URL))

# What the page may load and call. With the real Connect or Link, add what their documentation lists.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' data:",
        f"connect-src 'self' {STRONGROOM_ORIGIN}",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    for bank in BANKS.values():
        await bank.strongroom.close()


app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
errors.install(app)


@app.middleware("http")
async def headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if request.url.path.startswith("/api/"):
        response.headers["Cache-Control"] = "no-store"
    return response


api = APIRouter(prefix="/api")


# What the page has to know. There is no secret in it: an app key is public.
@api.get("/start")
async def start(user: Annotated[str | None, Depends(users.user_of)]) -> dict[str, Any]:
    links = [{"id": bank.id, "name": bank.name, "link": bank.link} for bank in BANKS.values()]
    return {"user": user, "users": users.USERS, "strongroomUrl": STRONGROOM_URL, "banks": links}


api.include_router(users.router)
api.include_router(connections.router)
app.include_router(api)
app.mount("/", StaticFiles(directory=FRONTEND, html=True, check_dir=False))
