"""The command line: every verb is a thin call of the Python face, which it imports when it runs."""

from __future__ import annotations

import sys

# Each registers its verbs; help lists them in this order.
from tagmask.cli import mask_verbs, run_verbs, export_verbs, data_verbs  # isort: skip  # noqa: F401
from tagmask.cli.apps import app
from tagmask.errors import TagmaskError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error of the user's is one line and exit status 2."""
    try:
        app()
    except TagmaskError as error:
        print(f"tagmask: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except PermissionError as error:
        print(
            f"tagmask: {error.filename}: no permission ({error.strerror}); change it, or name another place",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
