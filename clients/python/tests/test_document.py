from __future__ import annotations

import json
import os
import pathlib
import re
import sys

from strongroom import AsyncStrongroom, Strongroom

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENT = pathlib.Path(os.environ.get("STRONGROOM_OPENAPI") or HERE.parents[2] / "docs" / "openapi.json")
# OAuth's, the wires of the providers' SDKs, and what operators' tools read.
NOT_HERE = re.compile(
    r"(issue|revoke|introspect)Token|get(KeySet|ServerMetadata|Health|Readiness|Metrics|ProblemType)|.*(Wire|PlaidWebhook).*"
)


def test_both_clients_have_a_method_for_each_operation() -> None:
    document = json.loads(DOCUMENT.read_text())
    members = [member for path in document["paths"].values() for member in path.values()]
    found = [member.get("operationId") for member in members if isinstance(member, dict)]
    names = [re.sub(r"([A-Z])", r"_\1", name).lower() for name in found if name and not NOT_HERE.fullmatch(name)]
    assert len(names) > 30
    for client in (Strongroom, AsyncStrongroom):
        assert [name for name in names if not callable(getattr(client, name, None))] == []


def test_the_types_are_those_of_the_document() -> None:
    sys.path.insert(0, str(HERE.parent))
    from generate import TARGET, generate  # type: ignore[import-not-found]

    assert TARGET.read_text() == generate(json.loads(DOCUMENT.read_text()))
