"""Runs the lines of docs/oauth.md as they stand, in order: shell, Node, Python.

    python documentation.py BASE ID SECRET
"""

import os
import pathlib
import re
import subprocess
import sys

BASE, ID, SECRET = sys.argv[1:4]
here = pathlib.Path(__file__).parent
text = (here / "../../../docs/oauth.md").read_text()
environment = os.environ | {"STRONGROOM": BASE, "CLIENT_ID": ID, "CLIENT_SECRET": SECRET}
ways = {
    "sh": ["bash", "-euo", "pipefail", "-c"],
    "js": ["node", "--input-type=module", "-e"],
    "python": [sys.executable, "-c"],
}
ran = 0
for language, lines in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
    if language not in ways:
        continue
    # Node looks for packages from the folder in which it runs.
    result = subprocess.run([*ways[language], lines], env=environment, cwd=here, capture_output=True, text=True)
    told = result.stdout + result.stderr
    assert result.returncode == 0 and '"error"' not in told, f"{lines}\n{told}"
    ran += 1
assert ran == 6, f"{ran} pieces of docs/oauth.md were run"
print(f"ok  docs/oauth.md  {ran} pieces")
