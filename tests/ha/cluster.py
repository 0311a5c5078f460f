"""Three machines, each a network namespace with an etcd, a Patroni and its PostgreSQL, and what can befall them."""

import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request

from configuration import block, replaced

GATEWAY = "10.77.0.1"
PASSWORD = "change-me"
PATRONI = os.environ.get("STRONGROOM_HA_PATRONI", "patroni")


def run(*command, check=True):
    """Runs a program to its end and returns its output."""
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def wait_for(what, seconds, condition, pause=0.2):
    """Waits until the condition returns something true, and returns that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise TimeoutError(f"{what}: not within {seconds} s")


class Node:
    """One machine."""

    def __init__(self, number, scratch, bin_dir, settings):
        self.name, self.address = f"db{number}", f"10.77.0.1{number}"
        self.number = number
        self.home = scratch / self.name
        self.bin_dir, self.settings = bin_dir, settings
        self.etcd = self.patroni = None

    def connect(self):
        """Gives the machine its network."""
        outside = f"ha{self.number}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", outside, "master", "ha0", "up")
        for line in ("link set lo up", f"addr add {self.address}/24 dev eth0", "link set eth0 up"):
            run("ip", "-n", self.name, *line.split())

    def prepare(self):
        """Writes the machine's files."""
        self.home.mkdir()
        text = replaced(
            block("patroni.yml"),
            ("name: db1", f"name: {self.name}"),
            ("10.77.0.11:8008", f"{self.address}:8008"),
            ("10.77.0.11:5432", f"{self.address}:5432"),
            ("/var/lib/postgresql/15/strongroom", str(self.home / "data")),
            ("/usr/lib/postgresql/15/bin", self.bin_dir),
            ("/var/lib/postgresql/.pgpass-patroni", str(self.home / "pgpass")),
            ("/var/run/postgresql", str(self.home)),
            # SCRAM takes a debug build 0.2 s of a core for each connection, which a release build does in a millisecond.
            ("10.77.0.0/24 scram-sha-256", "10.77.0.0/24 trust"),
            *self.settings,
        )
        (self.home / "patroni.yml").write_text(text)
        run("chown", "-R", "postgres", str(self.home))

    def started(self, log, *command, as_postgres=True):
        """Starts a program on this machine."""
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if as_postgres else []
        with open(self.home / log, "a") as output:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *user, *command],
                stdout=output, stderr=output, cwd="/", start_new_session=True,
                env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
            )

    def start_etcd(self):
        text = replaced(
            block("etcd.yml"),
            ("name: db1", f"name: {self.name}"),
            ("10.77.0.11:2379\n", f"{self.address}:2379\n"),
            ("10.77.0.11:2380\n", f"{self.address}:2380\n"),
            ("/var/lib/etcd/strongroom", str(self.home / "etcd")),
        )
        (self.home / "etcd.yml").write_text(text)
        self.etcd = self.started("etcd.log", "etcd", "--config-file", str(self.home / "etcd.yml"), as_postgres=False)

    def start_patroni(self):
        self.patroni = self.started("patroni.log", PATRONI, str(self.home / "patroni.yml"))

    def processes(self):
        """The process ids of Patroni and of every PostgreSQL process here: all but etcd's."""
        pids = {int(pid) for pid in run("ip", "netns", "pids", self.name).split()}
        return pids - {self.etcd.pid}

    def signal(self, number):
        """Sends a signal to Patroni and all of PostgreSQL, until no process is left that did not get it."""
        reached = set()
        while left := self.processes() - reached:
            for pid in left:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            reached |= left
        if number == signal.SIGKILL:
            self.patroni.wait()

    def drop(self, *which):
        """Drops every packet from and to these machines; with none given, from and to everyone."""
        peers = "{ " + ", ".join(which) + " }"
        there, here = (f"ip daddr {peers}", f"ip saddr {peers}") if which else ("oifname eth0", "iifname eth0")
        rules = f"""table inet partition {{
            chain out {{ type filter hook output priority 0; {there} drop; }}
            chain in {{ type filter hook input priority 0; {here} drop; }}
        }}"""
        subprocess.run(["ip", "netns", "exec", self.name, "nft", "-f", "-"], input=rules, text=True, check=True)

    def pass_again(self):
        run("ip", "netns", "exec", self.name, "nft", "delete", "table", "inet", "partition")

    def ask(self, path, body=None):
        """Asks this machine's Patroni; None if it does not answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}:8008{path}", data)
        try:
            with urllib.request.urlopen(request, timeout=0.5 if body is None else 30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError:
            return None


class Cluster:
    """The three of them."""

    def __init__(self, scratch, bin_dir, settings=(), asynchronous=False):
        self.scratch, self.bin_dir = scratch, bin_dir
        self.nodes = [Node(number, scratch, bin_dir, settings) for number in (1, 2, 3)]
        self.proxy = None
        self.in_order = [("streaming", "async" if asynchronous else "sync")] * 2
        self.roles = ["leader"] + ["replica" if asynchronous else "sync_standby"] * 2

    def start(self):
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "ha0", "type", "bridge")
        run("ip", "addr", "add", f"{GATEWAY}/24", "dev", "ha0")
        run("ip", "link", "set", "ha0", "up")
        for node in self.nodes:
            node.connect()
            node.prepare()
            node.start_etcd()
        for node in self.nodes:
            node.start_patroni()
        self.wait_healthy(90)
        sql = block("prepare.sql")
        self.psql(sql, database="postgres")

    def start_proxy(self):
        path = self.scratch / "haproxy.cfg"
        path.write_text(block("haproxy.cfg"))
        with open(self.scratch / "haproxy.log", "a") as log:
            self.proxy = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stdout=log, stderr=log)
        wait_for("the proxy", 20, self.proxied)

    def proxied(self):
        """Returns whether the proxy knows the primary: it believes in every server until it has asked."""
        try:
            return self.psql("SELECT 1 WHERE NOT pg_is_in_recovery()", host="127.0.0.1:5000")
        except RuntimeError:
            return False

    def psql(self, sql, database="strongroom", host=None):
        """Rows of a query on the primary, as lists of text."""
        url = f"postgres://postgres:{PASSWORD}@{host or self.primary().address}/{database}"
        command = [str(pathlib.Path(self.bin_dir) / "psql"), "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", url]
        done = subprocess.run(command, input=sql, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def primary(self):
        """The node that holds the leader's lock."""
        return wait_for("a primary", 60, self.leader_now)

    def leader_now(self):
        found = [node for node in self.nodes if (node.ask("/primary") or (0,))[0] == 200]
        return found[0] if len(found) == 1 else None

    def wait_for_another(self, former, seconds):
        """Waits until another machine than this is the primary; returns whether one is."""
        try:
            return wait_for("another primary", seconds, lambda: self.leader_now() not in (None, former))
        except TimeoutError:
            return False

    def members(self):
        for node in self.nodes:
            answer = node.ask("/cluster")
            if answer and answer[0] == 200:
                return json.loads(answer[1])["members"]
        return []

    def standby(self):
        """The name of a standby that a switchover may promote."""
        return next(m["name"] for m in self.members() if m["role"] in ("replica", "sync_standby"))

    def wait_healthy(self, seconds=60):
        """Waits until one leads, and two stream from it and may take over."""

        def healthy():
            # The primary's own word, not that of etcd, which remembers what a machine said last.
            leader = self.leader_now()
            answer = leader and leader.ask("/patroni")
            standbys = json.loads(answer[1]).get("replication", []) if answer else []
            if [(standby["state"], standby["sync_state"]) for standby in standbys] != self.in_order:
                return False
            # And etcd's, which says who may be promoted.
            return sorted(member["role"] for member in self.members()) == self.roles

        try:
            return wait_for("three nodes in order", seconds, healthy)
        except TimeoutError as late:
            raise TimeoutError(f"{late}; {self.members()}") from None

    def stop(self):
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGKILL)
            node.etcd.kill()
            node.etcd.wait()
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()
        for node in self.nodes:
            run("ip", "netns", "del", node.name)
        run("ip", "link", "del", "ha0")
