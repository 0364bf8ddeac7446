"""The tables that tagmask writes: CSV whose cells no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

_FORMULA = re.compile(r"'*[=+\-@\t]")


def csv_text(rows: Iterable[Iterable[str]]) -> str:
    """Rows of text as CSV. A cell that a spreadsheet would run as a formula gets a quote before it.
    No cell may hold a carriage return; names that come from data hold none.

    Source: OWASP, "CSV Injection".
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([f"'{cell}" if _FORMULA.match(cell) else cell for cell in row] for row in rows)
    return text.getvalue()


def plain_cell(cell: str) -> str:
    """A cell as it was before `csv_text` put a quote before it."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
