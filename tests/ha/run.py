"""Breaks the primary again and again under load, and says what came of it. `scripts/test-ha` starts this as root in
namespaces of its own."""

import asyncio
import os
import pathlib
import signal
import statistics
import sys
import time
import traceback
from dataclasses import dataclass

from check import FIGURES, Bank, check
from cluster import PASSWORD, PATRONI, Cluster
from load import PROMPT, Load
from service import Service

ROUNDS = int(os.environ.get("ROUNDS", "1"))
SEED = int(os.environ.get("STRONGROOM_HA_SEED", "1"))
# The ttl of the document's configuration.
TTL = int(os.environ.get("STRONGROOM_HA_TTL", "5"))
# A control: without synchronous replication, commits are lost, and the checker has to see it.
CONTROL = os.environ.get("STRONGROOM_HA_CONTROL", "")
# A call whose end could not be recorded keeps its token for that long and ten seconds more.
ENVIRONMENT = {"DAPI_CALL_TIMEOUT": "10", "STRONGROOM_LOG": "warn"}
# Seconds that a machine with other work on it may take besides.
SLACK = float(os.environ.get("STRONGROOM_HA_SLACK", "0"))
STEADY = 3.0


def settings():
    changed = []
    if TTL != 5:
        loop, retry = TTL // 4, TTL * 3 // 8
        changed.append(("ttl: 5\n    loop_wait: 1\n    retry_timeout: 2\n",
                        f"ttl: {TTL}\n    loop_wait: {loop}\n    retry_timeout: {retry}\n"))
    if PATRONI != "patroni":
        changed.append(("etcd:\n", "etcd3:\n"))
    if CONTROL == "asynchronous":
        changed.append(("synchronous_mode: true\n    synchronous_mode_strict: true\n", "synchronous_mode: false\n"))
    return changed


@dataclass
class Fault:
    """What befell the primary, and when writes worked again."""

    name: str
    mode: str
    limit: float
    back: float = 0.0
    slowest: float = 0.0
    refused: int = 0
    promoted: str = ""


class Trial:
    """One way of finding the primary, with a cluster, a service and a load of its own."""

    def __init__(self, mode, url, scratch, bin_dir):
        self.mode = mode
        self.cluster = Cluster(scratch, bin_dir, settings(), CONTROL == "asynchronous")
        self.service = Service(scratch, url, ENVIRONMENT)
        self.load = Load(SEED)
        self.bank = Bank()
        self.faults = []

    def say(self, text):
        print(f"{time.strftime('%H:%M:%S')} {self.mode}: {text}", flush=True)

    async def run(self):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.cluster.start)
        if self.mode == "proxy":
            self.cluster.start_proxy()
        self.service.start()
        await self.load.start()
        self.say("the cluster is up, and the load is on")
        await asyncio.sleep(STEADY)
        for _ in range(ROUNDS):
            # The first three in a row: the next as soon as three machines are in order again.
            for fault in (self.kill, self.partition, self.pause):
                await self.in_order()
                await fault()
            for fault in (self.isolation, self.standby, self.switchover):
                await self.in_order()
                await self.quiet()
                await fault()
        await self.in_order()
        await self.quiet()
        await self.load.stop()
        figures = await check(self.cluster, self.load, self.bank, self.service)
        await self.load.close()
        if not self.service.alive():
            self.load.known.violation("a replica of Strongroom ended")
        return figures

    async def in_order(self):
        await self.bank.note(self.load)
        try:
            await self.off_the_loop(self.cluster.wait_healthy, 90)
        except TimeoutError as late:
            self.load.known.violation(str(late))

    async def quiet(self):
        since = time.monotonic()
        await self.until(lambda: self.load.working_again(since), 60)

    async def off_the_loop(self, work, *arguments):
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    async def until(self, condition, seconds):
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.1)
        return True

    # The faults.

    async def kill(self):
        primary = await self.off_the_loop(self.cluster.primary)
        await self.befall(
            "kill -9", 10 if TTL == 5 else TTL + 10, primary,
            lambda: primary.signal(signal.SIGKILL), primary.start_patroni,
        )

    async def switchover(self):
        primary = await self.off_the_loop(self.cluster.primary)
        order = {"leader": primary.name, "candidate": self.cluster.standby()}
        await self.befall("switchover", 10, primary, lambda: primary.ask("/switchover", order), lambda: None)

    async def partition(self):
        primary = await self.off_the_loop(self.cluster.primary)
        await self.befall("partition", TTL + 10, primary, primary.drop, primary.pass_again)

    async def isolation(self):
        """Cut off from the other two machines, and not from Strongroom, which goes on asking it."""
        primary = await self.off_the_loop(self.cluster.primary)
        others = [node.address for node in self.cluster.nodes if node is not primary]
        await self.befall("cut off from its peers", TTL + 10, primary, lambda: primary.drop(*others), primary.pass_again)

    async def pause(self):
        primary = await self.off_the_loop(self.cluster.primary)
        await self.befall(
            "pause", TTL + 10, primary,
            lambda: primary.signal(signal.SIGSTOP), lambda: primary.signal(signal.SIGCONT),
        )

    async def standby(self):
        """A standby cut off: commits wait for it until the primary gives it up."""
        primary = await self.off_the_loop(self.cluster.primary)
        standby = next(node for node in self.cluster.nodes if node is not primary)
        await self.befall("a standby cut off", 10, primary, standby.drop, standby.pass_again, fails_over=False)

    async def befall(self, name, limit, primary, strike, mend, fails_over=True):
        """Strikes, waits until writes work, mends, and notes the figures."""
        known, fault = self.load.known, Fault(name, self.mode, limit)
        began = time.monotonic()
        await self.off_the_loop(strike)
        struck = began if name == "switchover" else time.monotonic()
        taken_over = not fails_over or await self.off_the_loop(self.cluster.wait_for_another, primary, limit + 30)
        back = await self.until(lambda: self.load.working_again(struck), limit + 30)
        # What comes back meets a load that has moved on.
        await asyncio.sleep(1)
        mended = time.monotonic()
        await self.off_the_loop(mend)
        fault.back = self.back(began, struck, mended) if back else float("inf")
        if not taken_over:
            known.violation(f"{name}: no other machine became the primary")
        if fault.back > limit + SLACK:
            known.violation(f"{name}: writes were back after {fault.back:.1f} s, {limit:.0f} s are allowed")
        during = [r for r in known.requests if began <= r.began < mended]
        fault.slowest = max((r.seconds for r in during), default=0)
        fault.refused = sum(r.status >= 500 for r in during)
        leader = await self.off_the_loop(self.cluster.primary)
        fault.promoted = f"{primary.name} → {leader.name}"
        self.faults.append(fault)
        self.say(f"{name}: {fault.promoted}, writes back after {fault.back:.1f} s, "
                 f"{fault.refused} of {len(during)} refused, slowest {fault.slowest:.1f} s")

    def back(self, began, struck, mended):
        """The seconds from the fault until the first write that was answered at once, on both replicas, after the last
        that was not."""
        longest = 0.0
        for replica in (0, 1):
            probes = [r for r in self.load.known.requests if r.kind == "probe" and r.replica == replica]
            probes = [r for r in probes if began <= r.began < mended]
            bad = [r.began for r in probes if r.status != 201 or r.seconds > PROMPT]
            last_bad = max(bad, default=None)
            if last_bad is None:
                continue
            good = [r.ended for r in probes if r.began > last_bad]
            longest = max(longest, min(good, default=float("inf")) - struck)
        return longest

    def stop(self):
        self.service.stop()
        self.cluster.stop()


def table(faults):
    """The worst of all rounds, fault by fault."""
    heads = ["fault", "primary found by", "writes back after", "allowed", "slowest answer", "refused (503)"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    seen = dict.fromkeys((f.name, f.mode) for f in faults)
    for name, mode in seen:
        these = sorted((f for f in faults if (f.name, f.mode) == (name, mode)), key=lambda f: f.back)
        median = statistics.median(fault.back for fault in these)
        worst = f"{these[-1].back:.1f} s" if len(these) == 1 else f"{median:.1f} s, at worst {these[-1].back:.1f} s"
        slowest = max(f.slowest for f in these)
        refused = sum(f.refused for f in these) // len(these)
        lines.append(f"| {name} | {mode} | {worst} | {these[0].limit:.0f} s | {slowest:.1f} s | {refused} |")
    return "\n".join(lines)


def main():
    bin_dir = os.environ["PG_BIN"]
    base = pathlib.Path(os.environ["STRONGROOM_HA_SCRATCH"])
    hosts = ",".join(f"10.77.0.1{number}:5432" for number in (1, 2, 3))
    modes = {
        "proxy": f"postgres://strongroom:{PASSWORD}@127.0.0.1:5000/strongroom",
        "hosts": f"postgres://strongroom:{PASSWORD}@{hosts}/strongroom?target_session_attrs=read-write",
    }
    wanted = os.environ.get("STRONGROOM_HA_MODES", "proxy,hosts").split(",")
    faults, figures, violations = [], {}, []
    began = time.monotonic()
    for mode in wanted:
        scratch = base / mode
        scratch.mkdir()
        scratch.chmod(0o755)
        trial = Trial(mode, modes[mode], scratch, bin_dir)
        try:
            figures[mode] = asyncio.run(trial.run())
        except Exception as error:
            traceback.print_exc()
            trial.load.known.violation(f"the test itself failed: {error!r}")
        finally:
            faults += trial.faults
            violations += [f"{mode}: {what}" for what in trial.load.known.violations]
            trial.stop()
    print(f"\n{table(faults)}\n\n| | {' | '.join(figures)} |\n|---|{'---|' * len(figures)}")
    for key, what in FIGURES:
        row = " | ".join(f"{of[key]:,.1f}" if key == "slowest" else f"{of[key]:,}" for of in figures.values())
        print(f"| {what} | {row} |")
    print(f"\ntest-ha: {len(faults)} faults in {time.monotonic() - began:.0f} s (seed {SEED}, ttl {TTL})")
    if violations:
        print(f"test-ha: {len(violations)} things do not hold:\n" + "\n".join(violations[:50]))
        sys.exit(1)


if __name__ == "__main__":
    main()
