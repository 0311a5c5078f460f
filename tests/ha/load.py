"""The callers: exchanges, readings, relayed calls and revocations on both replicas, and what they were told.

Every request is remembered with its moments and its answer. A caller repeats what was not acknowledged, as an app does.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field

import aiohttp

from service import CLIENT, REPLICAS, SANDBOX

# Within how many seconds a request has to be answered, whatever the database does (docs/resilience.md).
BOUND = 10.0
# The same if the answer waits for the bank: STRONGROOM_ANSWER_WITHIN or the call, with a statement before and after it,
# each of which may take 1.6 times STRONGROOM_DATABASE_TIMEOUT if the database falls silent at that moment.
BANK_BOUND = 18.0
WAITS_FOR_BANK = {"POST /v1/connections", "POST …/delink", "POST …/invalidate", "POST …/dapi/…"}
# Longer than that only in order to see by how much.
PATIENCE = 40.0
# A write that takes longer is one that does not yet work again.
PROMPT = 2.0
# Between two probes of one replica.
PROBE_EVERY = 0.1


@dataclass
class Request:
    """One request and its answer; status 0 if none came."""

    kind: str
    replica: int
    began: float
    ended: float
    status: int
    code: str | None = None

    @property
    def seconds(self):
        return self.ended - self.began

    @property
    def is_late(self):
        return self.seconds > (BANK_BOUND if self.kind in WAITS_FOR_BANK else BOUND)


@dataclass
class Link:
    """A connection that was seen active."""

    id: str
    user: str
    code: str
    revoked_at: float | None = None


@dataclass
class Known:
    """What the callers know."""

    requests: list[Request] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)
    recent: list[Link] = field(default_factory=list)
    # Codes that were acknowledged as received, with their connection's id.
    accepted: dict[str, str] = field(default_factory=dict)
    handed_in: set[str] = field(default_factory=set)
    # Acknowledged writes by the id of their request, which the audit trail has to have.
    written: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    reveals: int = 0
    relays: int = 0
    revocations: int = 0

    def violation(self, what):
        self.violations.append(what)


class Load:
    """The callers, for as long as they run."""

    def __init__(self, seed):
        self.known, self.over = Known(), False
        # Replicas that are being replaced: a load balancer sends nothing to them.
        self.out = set()
        self.dice = random.Random(seed)
        self.tokens = ["", ""]
        self.tasks, self.sent = [], set()
        self.number = 0

    async def start(self):
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        self.http = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        for replica in (0, 1):
            await self.renew(replica)
        callers = [self.linker, self.linker, self.reader, self.reader, self.caller, self.caller, self.revoker]
        for replica in (0, 1):
            self.tasks += [asyncio.create_task(self.again_and_again(work, replica)) for work in callers]
            self.tasks.append(asyncio.create_task(self.probe_writes(replica)))
            self.tasks.append(asyncio.create_task(self.probe_endpoints(replica)))

    async def stop(self):
        """Ends when every caller has been told what became of its last request."""
        self.over = True
        await asyncio.gather(*self.tasks)
        await asyncio.gather(*self.sent)

    async def close(self):
        await self.http.close()

    async def again_and_again(self, work, replica):
        while not self.over:
            # One replica or the other: an app's callers reach both.
            await work(replica if self.dice.random() < 0.7 else 1 - replica)
            await asyncio.sleep(self.dice.uniform(0.02, 0.06))

    async def send(self, kind, replica, method, path, body=None, token=None, form=None):
        """One request: its status, its answer, and the id under which the audit trail knows it."""
        if replica in self.out:
            replica = 1 - replica
        headers = {"Authorization": f"Bearer {token or self.tokens[replica]}"} if form is None else {}
        request = Request(kind, replica, time.monotonic(), 0, 0)
        answer, identity = None, ""
        try:
            sending = self.http.request(
                method, REPLICAS[replica] + path, json=body, data=form, headers=headers
            )
            async with sending as response:
                text = await response.read()
                request.status, identity = response.status, response.headers.get("X-Request-ID", "")
                answer = await response.json() if text and "json" in response.content_type else text
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = repr(error)
            # What a replica that is being replaced owes to those who had sent something, its test knows.
            if replica not in self.out:
                self.known.violation(f"{kind}: no answer by HTTP: {answer}")
        request.ended = time.monotonic()
        if isinstance(answer, dict):
            request.code = answer.get("code")
        self.known.requests.append(request)
        return request.status, answer, identity

    def unexpected(self, what, status, answer):
        """Anything but what has passed by the next try."""
        if status not in (0, 429, 503):
            self.known.violation(f"{what}: {status} {answer}")

    async def renew(self, replica):
        form = {"grant_type": "client_credentials", "client_id": CLIENT[0], "client_secret": CLIENT[1]}
        status, answer, _ = await self.send("POST /oauth2/token", replica, "POST", "/oauth2/token", form=form)
        if status == 200:
            self.tokens[replica] = answer["access_token"]
        else:
            self.unexpected("a token", status, answer)

    async def connected(self, user):
        while True:
            try:
                async with self.http.post(f"{SANDBOX}/sandbox/connect", json={"clientUserID": user}) as response:
                    return await response.json()
            except aiohttp.ServerDisconnectedError:
                # A connection that was idle for as long as the database was away.
                continue

    async def linker(self, replica):
        """Hands a result in as often as it takes to be told what became of it."""
        self.number += 1
        user = f"user-{self.number}"
        result = await self.connected(user)
        code = result["tokenID"]
        self.known.handed_in.add(code)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            status, answer, identity = await self.send(
                "POST /v1/connections", replica, "POST", "/v1/connections", result | {"clientUserID": user}
            )
            if status in (200, 201, 202):
                self.known.accepted.setdefault(code, answer["id"])
                if self.known.accepted[code] != answer["id"]:
                    self.known.violation(f"one code, two connections: {answer['id']}")
                if status == 201:
                    self.known.written[identity] = f"exchange of {answer['id']}"
                if answer["status"] == "active":
                    link = self.known.links.setdefault(answer["id"], Link(answer["id"], user, code))
                    self.known.recent = [*self.known.recent[-59:], link]
                    return
                if answer["status"] != "pending":
                    return self.known.violation(f"a code ended as {answer['status']}")
            else:
                self.unexpected("handing a code in", status, answer)
            replica = 1 - replica
            await asyncio.sleep(0.25)
        self.known.violation(f"the code {code} has no end after 120 s of repeating")

    def some_link(self):
        return self.dice.choice(self.known.recent) if self.known.recent else None

    async def use(self, kind, replica, link, path, body):
        """A reading or a call; returns its answer if it succeeded."""
        began = time.monotonic()
        status, answer, identity = await self.send(kind, replica, "POST", f"/v1/connections/{link.id}/{path}", body)
        if status == 200:
            self.known.written[identity] = f"{kind} of {link.id}"
            if link.revoked_at is not None and link.revoked_at < began:
                self.known.violation(f"{kind} of {link.id} after its revocation was acknowledged")
            return answer
        # 502: the bank closed a connection that was idle for as long as the database was away.
        if status not in (409, 502):
            self.unexpected(kind, status, answer)
        return None

    async def reader(self, replica):
        if link := self.some_link():
            body = {"reason": "failover test"}
            answer = await self.use("POST …/token", replica, link, "token", body)
            self.known.reveals += bool(answer and answer["accessToken"])

    async def caller(self, replica):
        if link := self.some_link():
            answer = await self.use("POST …/dapi/…", replica, link, "dapi/data/identity/get", {})
            if answer is not None:
                self.known.relays += 1
                revoked = link.revoked_at is not None
                if answer.get("success") is not True and not revoked:
                    self.known.violation(f"the bank refused a call of {link.id}: {answer}")

    async def revoker(self, replica):
        """Revokes one connection, and repeats that until it is acknowledged."""
        link = self.some_link()
        if not link or link.revoked_at is not None or self.dice.random() < 0.4:
            return
        how = self.dice.choice(["delink", "invalidate"])
        body = {"reason": "failover test"} if how == "invalidate" else {}
        kind, path = f"POST …/{how}", f"/v1/connections/{link.id}/{how}"
        until = time.monotonic() + 120
        while time.monotonic() < until:
            status, answer, identity = await self.send(kind, replica, "POST", path, body)
            if status in (200, 202):
                # Acknowledged by an answer that is read: what begins from now on must not succeed.
                link.revoked_at = link.revoked_at or time.monotonic()
                self.known.revocations += 1
                return
            self.unexpected(kind, status, answer)
            await asyncio.sleep(0.25)
        self.known.violation(f"{link.id} could not be revoked within 120 s")

    async def probe_writes(self, replica):
        """A small write at fixed moments, whether or not the one before was answered."""
        while not self.over:
            self.in_background(self.probe_write(replica))
            await asyncio.sleep(PROBE_EVERY)

    def in_background(self, work):
        task = asyncio.create_task(work)
        self.sent.add(task)
        task.add_done_callback(self.sent.discard)

    async def probe_write(self, replica):
        body = {"clientUserID": f"prober-{replica}"}
        status, answer, identity = await self.send("probe", replica, "POST", "/v1/connect-sessions", body)
        if status == 201:
            self.known.written[identity] = "a connect session"
        else:
            self.unexpected("a connect session", status, answer)

    async def probe_endpoints(self, replica):
        """The other ways in, one after the other."""
        reads = ["/v1/connections?limit=2", "/v1/events?limit=1", "/v1/admin/audit-events?limit=1", "/v1/admin/stats"]
        while not self.over:
            for path in reads:
                kind = f"GET {path.split('?')[0]}"
                self.in_background(self.probe_endpoint(kind, replica, path))
                await asyncio.sleep(0.2)
            for path in ("/healthz", "/readyz"):
                self.in_background(self.probe_endpoint(f"GET {path}", replica, path))
                await asyncio.sleep(0.2)
            self.in_background(self.renew(replica))

    async def probe_endpoint(self, kind, replica, path):
        status, answer, _ = await self.send(kind, replica, "GET", path)
        if status != 200:
            self.unexpected(kind, status, answer)
        if kind == "GET /healthz" and status != 200:
            self.known.violation(f"/healthz: {status}")

    def working_again(self, since):
        """Returns whether the last probes of each replica, begun since a moment, all succeeded at once."""
        for replica in (0, 1):
            probes = [r for r in self.known.requests[-2000:] if r.kind == "probe" and r.replica == replica]
            probes = [r for r in probes if r.began > since]
            last = sorted(probes, key=lambda r: r.began)[-10:]
            if len(last) < 10 or not all(r.status == 201 and r.seconds < PROMPT for r in last):
                return False
        return True
