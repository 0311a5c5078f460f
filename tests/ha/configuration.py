"""The files of docs/high-availability.md, as they stand there: what the document says to copy is what the test runs."""

import pathlib
import re

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "high-availability.md"


def block(name):
    """The fenced block that follows the line with this file's name."""
    found = re.search(rf"^`{re.escape(name)}`[^\n]*\n\n```\w+\n(.*?)^```", DOCUMENT.read_text(), re.S | re.M)
    if not found:
        raise SystemExit(f"test-ha: {DOCUMENT.name} has lost {name}")
    return found[1]


def replaced(text, *pairs):
    """The text with each of these replaced, all of which have to be there."""
    for old, new in pairs:
        if old not in text:
            raise SystemExit(f"test-ha: {DOCUMENT.name} has lost {old!r}")
        text = text.replace(old, new)
    return text
