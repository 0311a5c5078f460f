"""Holds the rendered chart against what it promises, and lets it refuse what would be a mistake.

    chart.py HELM CHART SCRATCH       writes SCRATCH/NAME.yaml for each file of CHART/ci
"""

import pathlib
import subprocess
import sys

import yaml

HELM, CHART, SCRATCH = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
MINIMAL = CHART / "ci" / "minimal.yaml"


def render(*arguments):
    """The documents that the chart renders to; None and the error if it refuses."""
    command = [HELM, "template", "bank", str(CHART), "--namespace", "pay", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return None, done.stderr
    return done.stdout, [document for document in yaml.safe_load_all(done.stdout) if document]


def check(holds, what):
    if not holds:
        sys.exit(f"test-deploy: the chart: {what}")


def pods(documents):
    return {
        document["kind"]: document["spec"]["template"]["spec"]
        for document in documents
        if document["kind"] in ("Deployment", "Job")
    }


def variables(container):
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def locked_down(pod, kind):
    """What holds for every pod: no root, no privilege, nothing writable, no account, no secret in its environment."""
    check(pod["automountServiceAccountToken"] is False, f"{kind} mounts a service account's token")
    security = pod["securityContext"]
    check(security["runAsNonRoot"] and security["seccompProfile"] == {"type": "RuntimeDefault"}, f"{kind}: {security}")
    for container in pod["containers"]:
        security = container["securityContext"]
        check(security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], f"{kind}: {security}")
        check(security["capabilities"] == {"drop": ["ALL"]}, f"{kind}: {security}")
        mounted = [at["mountPath"] for at in container["volumeMounts"]]
        for name, value in variables(container).items():
            check(name not in ("DATABASE_URL", "STRONGROOM_MASTER_KEYS"), f"{kind} has {name} in its environment")
            if name.endswith("_FILE"):
                check(any(value.startswith(path + "/") for path in mounted), f"{kind}: nothing is mounted at {value}")


def promises(documents):
    made = pods(documents)
    service, migration = made["Deployment"], made["Job"]
    for kind, pod in made.items():
        locked_down(pod, kind)
    container, job = service["containers"][0], migration["containers"][0]
    env = variables(container)
    check(env["STRONGROOM_MIGRATE"] == "false", "the service migrates")
    check(not any(name.startswith("STRONGROOM_MIGRATE_DATABASE_URL") for name in env), "the service has the owner's URL")
    check("STRONGROOM_MIGRATE_DATABASE_URL_FILE" in variables(job), "the Job lacks the owner's URL")
    check("STRONGROOM_MASTER_KEYS_FILE" not in variables(job), "the Job has the master keys")
    delay = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drained = delay + int(env["STRONGROOM_SHUTDOWN_GRACE"])
    check(service["terminationGracePeriodSeconds"] >= drained + 10, "a pod is killed before it has drained")
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    check(probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}, probes)
    kinds = [document["kind"] for document in documents]
    check("Secret" not in kinds, "it renders a Secret")
    check(kinds.count("NetworkPolicy") == 2 and "PodDisruptionBudget" in kinds, f"it renders {kinds}")
    services = [document for document in documents if document["kind"] == "Service"]
    exposed = [port["name"] for document in services for port in document["spec"]["ports"] if "metrics" not in document["metadata"]["name"]]
    check(exposed == ["http"], f"the API's Service has {exposed}")


REFUSED = {
    "a secret under config": ["--set-string", "config.DATABASE_URL=postgres://x"],
    "an AWS secret under config": ["--set-string", "config.AWS_SECRET_ACCESS_KEY=x"],
    "a setting that does not exist": ["--set-string", "config.STRONGROOM_LISTENN=x"],
    "a setting of the chart's own": ["--set-string", "config.STRONGROOM_MIGRATE=true"],
    "a secret that is none": ["--set", "secrets.STRONGROOM_LOG.name=x,secrets.STRONGROOM_LOG.key=y"],
    "a value that does not exist": ["--set", "replica=3"],
    "a service without its database": ["--set", "secrets.DATABASE_URL.name="],
    "a service without master keys": ["--set", "secrets.STRONGROOM_MASTER_KEYS.name="],
    "migrations without the owner": ["--set", "migrate.ownerDatabaseURL.name="],
    "an image from nowhere": ["--set", "image.repository="],
    "a digest that is none": ["--set", "image.digest=latest"],
}

for values in sorted((CHART / "ci").glob("*.yaml")):
    text, documents = render("--values", str(values))
    check(text is not None, f"{values.name} does not render: {documents}")
    promises(documents)
    (SCRATCH / values.name).write_text(text)
check(render()[0] is None, "it renders without any value")
for what, arguments in REFUSED.items():
    check(render("--values", str(MINIMAL), *arguments)[0] is None, f"it takes {what}")
_, documents = render("--values", str(MINIMAL), "--set", "migrate.mode=none,networkPolicy.enabled=false,podDisruptionBudget.enabled=false,serviceAccount.create=false")
check([document["kind"] for document in documents] == ["Service", "Service", "Deployment"], "what is off is rendered")
print(f"the chart keeps its promises and refuses {len(REFUSED) + 1} mistakes")
