"""Two replicas of Strongroom, and a bank for them."""

import os
import subprocess
import time
import urllib.request

BINARY = os.environ["STRONGROOM_BIN"]
SANDBOX = "http://127.0.0.1:8081"
CLIENT = ("hatestclient", "0123456789abcdef0123456789abcdef")
REPLICAS = ["http://127.0.0.1:8091", "http://127.0.0.1:8092"]


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


class Service:
    """All processes of Strongroom's side."""

    def __init__(self, scratch, database_url, environment):
        self.scratch, self.processes = scratch, {}
        keys = subprocess.run([BINARY, "keys", "generate"], capture_output=True, text=True, check=True).stdout.strip()
        self.environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "STRONGROOM_MASTER_KEYS": keys,
            "STRONGROOM_PUBLIC_URL": "http://strongroom.test",
            "STRONGROOM_BOOTSTRAP_CLIENT_ID": CLIENT[0],
            "STRONGROOM_BOOTSTRAP_CLIENT_SECRET": CLIENT[1],
            "STRONGROOM_REVEALS_PER_MINUTE": "1000000",
            "DAPI_BASE_URL": f"{SANDBOX}/v2",
            "DAPI_APP_KEY": "sandbox-app-key",
            "DAPI_APP_SECRET": "sandbox-app-secret",
            **environment,
        }

    def start(self, binary=BINARY):
        self.spawn("sandbox", "sandbox", "--listen", SANDBOX.removeprefix("http://"))
        self.command("migrate", binary=binary)
        for number in range(len(REPLICAS)):
            self.start_replica(number, binary)
        self.wait_ready(60)

    def start_replica(self, number, binary=BINARY):
        listen = {
            "STRONGROOM_LISTEN": REPLICAS[number].removeprefix("http://"),
            "STRONGROOM_METRICS_LISTEN": f"127.0.0.1:909{number + 1}",
        }
        self.spawn(f"replica-{number + 1}", "serve", binary=binary, **listen)

    def end_replica(self, number, seconds):
        """Asks a replica to end, and waits until it has answered what it had begun."""
        process = self.processes.pop(f"replica-{number + 1}")
        process.terminate()
        process.wait(seconds)
        return process.returncode

    def wait_ready(self, seconds):
        until = time.monotonic() + seconds
        waiting = [f"{url}/readyz" for url in REPLICAS] + [SANDBOX]
        while waiting := [url for url in waiting if not answers(url)]:
            if time.monotonic() > until:
                raise TimeoutError(f"not ready within {seconds} s: {waiting}")
            time.sleep(0.1)

    def spawn(self, name, *arguments, binary=BINARY, **environment):
        with open(self.scratch / f"{name}.log", "a") as log:
            self.processes[name] = subprocess.Popen(
                [binary, *arguments], env=self.environment | environment, stdout=log, stderr=log, cwd=self.scratch
            )

    def command(self, *arguments, binary=BINARY):
        """Runs one of Strongroom's commands to its end and returns its output."""
        done = subprocess.run(
            [binary, *arguments], env=self.environment, capture_output=True, text=True, cwd=self.scratch
        )
        if done.returncode != 0:
            raise RuntimeError(f"strongroom {' '.join(arguments)}: {done.stdout} {done.stderr}")
        return done.stdout

    def alive(self):
        return all(process.poll() is None for process in self.processes.values())

    def stop(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
