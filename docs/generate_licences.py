"""Write docs/licences.md: the licence of every package that `pip install tagmask[dev]` brings, as it states it itself.

    python docs/generate_licences.py

The packages are those of constraints/locked.txt; of those that are not installed here (other systems, other versions of
Python) the licence is not known.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

HERE = Path(__file__).parent
LOCKED = HERE.parent / "constraints" / "locked.txt"


def packages() -> list[str]:
    """Return the names in the locked list, each once."""
    lines = LOCKED.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(line.split("==")[0] for line in lines if "==" in line and not line.startswith("#")))


def licence(found: Distribution) -> str:
    """Return what a package says of its licence: an SPDX expression, a short text, or classifiers."""
    said = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
    if said and len(said) < 60 and "\n" not in said:
        return said
    classifiers = found.metadata.get_all("Classifier") or []
    own = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License ::")]
    return ", ".join(own) or (said.strip().splitlines()[0][:60] if said.strip() else "not stated")


def page() -> str:
    """Return the page."""
    rows = []
    for name in packages():
        try:
            found = distribution(name)
        except PackageNotFoundError:
            rows.append(f"| {name} | | not installed where this was written |")
            continue
        rows.append(f"| {name} | {found.version} | {re.sub(r'[|]', '/', licence(found))} |")
    head = (
        "# Licences\n\nWhat tagmask depends on, with its extras and what its development needs, and the licence that"
        " each package states. tagmask itself is under Apache-2.0. Written by `make licences`.\n\n"
        "| package | version | licence |\n| --- | --- | --- |\n"
    )
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (HERE / "licences.md").write_text(page(), encoding="utf-8")
