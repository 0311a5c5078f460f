"""Upgrades a fleet of two replicas under load, takes it back, and upgrades it again. `scripts/test-upgrade` starts this
beside a PostgreSQL, with the binaries of two releases."""

import asyncio
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

# The load and its checker are those of the failover test.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "ha"))

from check import FIGURES, Bank, check
from load import Load
from service import BINARY, REPLICAS, Service, answers

OLD, NEW = os.environ["STRONGROOM_OLD_BIN"], BINARY
# How long a fleet of two releases runs.
MIXED = float(os.environ.get("STRONGROOM_UPGRADE_SECONDS", "5"))
# A drain waits for the calls that are in flight, of which the sandbox answers each at once.
DRAIN = 30


class Database:
    """The one database of both releases."""

    def __init__(self, url):
        self.url = url

    def psql(self, sql):
        """Rows of a query, as lists of text."""
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/psql"))
        program = shutil.which("psql") or str(found[-1])
        command = [program, "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", self.url]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]


class Upgrade:
    """A fleet, its load, and what was replaced by what."""

    def __init__(self, scratch):
        self.database = Database(os.environ["DATABASE_URL"])
        self.service = Service(scratch, self.database.url, {"STRONGROOM_LOG": "warn"})
        self.load, self.bank = Load(1), Bank()
        # Of each replica that was ended: its number, its release, and when its drain began and was over.
        self.drains = []
        self.runs = ["old"] * len(REPLICAS)

    def say(self, text):
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    async def run(self):
        await asyncio.to_thread(self.service.start, OLD)
        await self.load.start()
        self.say("the old release runs, and the load is on")
        await asyncio.sleep(MIXED)
        print(self.service.command("migrate", "--check"))
        for release, binary in (("new", NEW), ("old", OLD), ("new", NEW)):
            for number in range(len(REPLICAS)):
                await self.replace(number, release, binary)
        await self.load.stop()
        figures = await check(self.database, self.load, self.bank, self.service)
        await self.load.close()
        if not self.service.alive():
            self.load.known.violation("a replica ended by itself")
        return figures

    async def replace(self, number, release, binary):
        """One replica, taken out of the rotation, ended, started as another release, and put back when it is ready."""
        self.load.out.add(number)
        began = time.monotonic()
        status = await asyncio.to_thread(self.service.end_replica, number, DRAIN)
        if status != 0:
            self.load.known.violation(f"a replica ended with status {status}")
        drained = time.monotonic()
        self.drains.append((number, self.runs[number], began, drained))
        self.runs[number] = release
        self.service.start_replica(number, binary)
        while not await asyncio.to_thread(answers, f"{REPLICAS[number]}/readyz"):
            if time.monotonic() > drained + 60:
                raise TimeoutError(f"the {release} release is not ready after 60 s")
            await asyncio.sleep(0.1)
        self.load.out.remove(number)
        ready = time.monotonic()
        self.say(f"replica {number + 1} is of the {release} release: drained in {drained - began:.1f} s, "
                 f"ready after {ready - drained:.1f} s")
        await asyncio.sleep(MIXED)
        await self.bank.note(self.load)

    def was_sent_elsewhere(self, request):
        """Whether a replica that drained refused a request that was waiting in it, so that its caller tries another. Some
        earlier releases did not answer every request before they ended."""
        refusals = {"new": (503,), "old": (503, 0)}
        return any(
            request.replica == number and request.began < drained and request.ended > began
            and request.status in refusals[release]
            for number, release, began, drained in self.drains
        )


def main():
    with tempfile.TemporaryDirectory() as scratch:
        upgrade = Upgrade(pathlib.Path(scratch))
        try:
            figures = asyncio.run(upgrade.run())
        finally:
            upgrade.service.stop()
        known = upgrade.load.known
        elsewhere = [request for request in known.requests if upgrade.was_sent_elsewhere(request)]
        for request in known.requests:
            if (request.status == 0 or request.status >= 500) and request not in elsewhere:
                known.violation(f"{request.kind}: {request.status} {request.code or ''}")
        for key, what in FIGURES:
            print(f"{figures[key]:>10,.1f}  {what}" if key == "slowest" else f"{figures[key]:>10,}  {what}")
        if known.violations:
            print(f"test-upgrade: {len(known.violations)} things do not hold:\n" + "\n".join(known.violations[:50]))
            for log in sorted(pathlib.Path(scratch).glob("*.log")):
                print(f"== the end of {log.name}\n" + "\n".join(log.read_text().splitlines()[-15:]))
            sys.exit(1)
    print("test-upgrade: both ways, and no request failed" + (
        f" but {len(elsewhere)} that a drain sent elsewhere" if elsewhere else ""))


if __name__ == "__main__":
    main()
