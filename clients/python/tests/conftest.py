"""A server that answers by a script, and each test once with the sync client and once with the async one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio.from_thread
import pytest

from strongroom import AsyncStrongroom, Strongroom

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Asked:
    method: str
    path: str
    headers: Any
    body: str


@dataclass
class Script:
    asked: list[Asked] = field(default_factory=list)
    tokens: int = 0
    expires_in: int = 3600
    token_answers: list[Answer] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length") or 0)
        body = handler.rfile.read(length).decode()
        with self.lock:
            if handler.path == "/oauth2/token":
                self.tokens += 1
                members = {"access_token": f"token-{self.tokens}", "token_type": "Bearer", "expires_in": self.expires_in}
                act = self.token_answers.pop(0) if self.token_answers else json_answer(200, members)
            else:
                self.asked.append(Asked(handler.command, handler.path, handler.headers, body))
                act = self.answers.pop(0) if self.answers else problem(500, "internal")
        act(handler)


def json_answer(status: int, body: Any, **headers: str) -> Answer:
    def act(handler: BaseHTTPRequestHandler) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return act


def problem(status: int, code: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    body = {"title": code, "status": status, "detail": "Why.", "code": code, "requestID": "r1", **more}
    return json_answer(status, body, **(headers or {}))


def dropped(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def half(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"id": ')
    handler.close_connection = True


def silent(handler: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(1.5)
    handler.close_connection = True


@pytest.fixture
def script() -> Iterator[Script]:
    found = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one piece: otherwise each answer waits for a delayed acknowledgement.
        wbufsize = -1

        def do(self) -> None:
            found.answer(self)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def shortest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom._core.random.random", lambda: 0.0)


class Driver:
    """Calls either client as if it were the sync one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._made: list[Any] = []
        if kind == "async":
            self._portal_context = anyio.from_thread.start_blocking_portal()
            self._portal = self._portal_context.__enter__()
        self._pool = ThreadPoolExecutor(12)

    def make(self, **options: Any) -> Any:
        client: Any = Strongroom(**options) if self.kind == "sync" else self._portal.call(lambda: AsyncStrongroom(**options))
        self._made.append(client)
        return client

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
        if self.kind == "sync":
            return self._pool.submit(function, *args, **options)

        async def run() -> Any:
            return await function(*args, **options)

        return self._portal.start_task_soon(run)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.start(function, *args, **options).result(60)

    def every(self, function: Callable[..., Any], **options: Any) -> list[Any]:
        """The items of a list."""
        if self.kind == "sync":
            return list(function(**options))

        async def run() -> list[Any]:
            return [item async for item in function(**options)]

        return list(self._portal.call(run))

    def page(self, function: Callable[..., Any], **options: Any) -> Any:
        if self.kind == "sync":
            return function(**options).page()

        async def run() -> Any:
            return await function(**options)

        return self._portal.call(run)

    def stop(self) -> None:
        for client in self._made:
            self.call(client.close)
        self._pool.shutdown()
        if self.kind == "async":
            self._portal_context.__exit__(None, None, None)


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    found = Driver(request.param)
    yield found
    found.stop()
