"""What PostgreSQL, the bank and the audit trail say in the end, against what the callers were told."""

import asyncio
import time
import uuid

from service import SANDBOX


# What `check` returns, in words.
FIGURES = [
    ("requests", "requests"), ("refused", "of them refused, by 503 and `Retry-After`"),
    ("slowest", "slowest answer, in seconds"), ("late", "answers after their bound"),
    ("exchanged", "codes acknowledged"), ("reveals", "readings"), ("relays", "relayed calls"),
    ("revoked", "revocations acknowledged"), ("acknowledged", "acknowledged writes"),
    ("lost", "**acknowledged writes lost**"), ("twice", "**codes exchanged twice**"),
    ("endless", "**codes without an end**"), ("orphaned", "**codes ended without their token**"),
    ("after", "**uses after an acknowledged revocation**"),
]


async def bank(load, what, **query):
    async with load.http.get(f"{SANDBOX}/sandbox/{what}", params={"limit": "10000", **query}) as response:
        return await response.json()


class Bank:
    """How often the bank exchanged each code. It forgets calls after ten thousand: asked in between."""

    def __init__(self):
        self.exchanged = {}

    async def note(self, load):
        report = await bank(load, "calls", path="auth/ExchangeToken")
        self.exchanged |= {code: count["exchanged"] for code, count in report["codes"].items()}


async def settle(cluster, known, seconds=180):
    """Waits until no connection is on its way; whatever a fault left behind is taken up when its lease has ended."""
    until = time.monotonic() + seconds
    sql = "SELECT count(*) FROM connections WHERE status IN ('pending', 'revoking')"
    while (left := cluster.psql(sql)[0][0]) != "0":
        if time.monotonic() > until:
            known.violation(f"{left} connections have no end after {seconds} s")
            return
        await asyncio.sleep(0.5)


def spelled(connection):
    """The id of a connection as a UUID, however it is written."""
    return uuid.UUID(connection.removeprefix("conn_"))


async def check(cluster, load, bank_counts, service):
    """Adds what does not hold to the violations, and returns the figures."""
    known = load.known
    await settle(cluster, known)
    await bank_counts.note(load)
    rows = cluster.psql("SELECT id, status, dapi_token_id FROM connections")
    status_of = {uuid.UUID(id): status for id, status, _ in rows}
    codes = [code for _, _, code in rows]
    lost = 0
    # Exchanges.
    for code, connection in known.accepted.items():
        if spelled(connection) not in status_of or code not in codes:
            lost += 1
            known.violation(f"{connection} was acknowledged and is lost")
    for link in known.links.values():
        status = status_of.get(spelled(link.id))
        wanted = ("active",) if link.revoked_at is None else ("delinked", "invalidated")
        if status is not None and status not in wanted:
            lost += 1
            known.violation(f"{link.id} ended as {status}, which was acknowledged otherwise")
    twice = len(codes) - len(set(codes)) + sum(count > 1 for count in bank_counts.exchanged.values())
    if twice:
        known.violation(f"{twice} codes were exchanged twice")
    missing = known.handed_in - bank_counts.exchanged.keys()
    if missing:
        known.violation(f"{len(missing)} codes never reached the bank")
    # Every other acknowledged write is in the audit trail under its request's id.
    trail = {row[0] for row in cluster.psql("SELECT DISTINCT request_id FROM audit_events WHERE request_id IS NOT NULL")}
    for identity, what in known.written.items():
        if str(uuid.UUID(identity)) not in trail:
            lost += 1
            known.violation(f"the audit trail has lost {what}")
    # The tokens at the bank: alive if and only if their connection is.
    live = {token["tokenID"]: token["live"] for token in (await bank(load, "tokens"))["tokens"]}
    for id, status, code in rows:
        if code in live and live[code] != (status == "active"):
            known.violation(f"{id} is {status} here, and its token is {'alive' if live[code] else 'dead'} at the bank")
    endless = sum(status in ("pending", "revoking") for status in status_of.values())
    orphaned = sum(status in ("orphaned", "expired", "rejected") for status in status_of.values())
    if orphaned:
        known.violation(f"{orphaned} codes ended without their token")
    try:
        service.command("audit", "verify")
    except RuntimeError as error:
        known.violation(f"the audit trail does not verify: {error}")
    slow = [r for r in known.requests if r.is_late]
    for r in slow[:10]:
        known.violation(f"{r.kind} took {r.seconds:.1f} s, {r.status}")
    return {
        "requests": len(known.requests),
        "refused": sum(r.status >= 500 for r in known.requests),
        "slowest": max(r.seconds for r in known.requests),
        "late": len(slow),
        "acknowledged": len(known.accepted) + len(known.written) + known.revocations,
        "exchanged": len(known.accepted),
        "reveals": known.reveals,
        "relays": known.relays,
        "revoked": known.revocations,
        "lost": lost,
        "twice": twice,
        "endless": endless,
        "orphaned": orphaned,
        "after": sum("after its revocation" in v for v in known.violations),
    }
