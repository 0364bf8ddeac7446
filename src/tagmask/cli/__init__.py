"""The command line: every verb is a thin call of the Python face, which it imports when it runs."""

from __future__ import annotations

import sys
import warnings

# Each registers its verbs; help lists them in this order.
from tagmask.cli import mask_verbs, run_verbs, reproduce_verb, export_verbs, data_verbs  # isort: skip  # noqa: F401
from tagmask.cli.apps import app
from tagmask.cli.errors import explain

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit status 2."""
    # tagmask has a limit of its own, and says it in a sentence (`data.max_pixels`).
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    try:
        app()
    except Exception as error:
        said = explain(error)
        if said is None:
            raise
        print(f"tagmask: {said}", file=sys.stderr)
        raise SystemExit(2) from None
