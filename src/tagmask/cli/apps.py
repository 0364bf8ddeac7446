"""The command line as typer sees it, still without verbs, and the options that several verbs share."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from tagmask.errors import TagmaskError
from tagmask.recipes import recipe_names

app = typer.Typer(
    name="tagmask",
    help="Image tags in, pixel masks out.\n\nFrom a folder to masks: `tagmask train photos/ -o runs/mine`, then "
    "`tagmask predict runs/mine new_photos/ -o masks/`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at a data set, or make one.", no_args_is_help=True)
import_app = typer.Typer(help="Take over published checkpoints.", no_args_is_help=True)
export_app = typer.Typer(help="Write masks, or a run, in forms that others read.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(import_app, name="import")
app.add_typer(export_app, name="export")


def _with_values(settings: list[str] | None) -> list[str] | None:
    """Refuse a key without a value here: the value after a blank would be taken for another argument."""
    for text in settings or ():
        if "=" not in text:
            raise TagmaskError(
                f"--set {text}: expected KEY=VALUE, such as --set optimizer.lr=1e-4: an equals sign and no blanks"
            )
    return settings


Set = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads this form)
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=_with_values,
        help="Override a key of the recipe, as --set optimizer.lr=1e-4; repeatable.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there, also if tagmask did not write it or it was changed.")
]
Split = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--split", help="Only this split; repeatable."),
]
RecipeOfData = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--recipe", "-r", autocompletion=recipe_names, help="Whose data section to read by."),
]
DataPath = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(help="Folder, tags table (CSV, JSONL), COCO file or VOC tree."),
]


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"tagmask {version('tagmask')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    show_messages()


def check_order(verb: str, made: str | Path | None, data: str | Path | None) -> None:
    """Refuse a command whose two paths are swapped or the same, before either is read for what it is not.

    Args:
        verb: as typed.
        made: what comes first, a run folder or a folder that tagmask wrote; None where the verb takes only data.
        data: what comes second.

    Raises:
        TagmaskError: names the order in which the two are to be given.
    """
    if data is None:
        return
    first, second = Path(made or ""), Path(data)
    if made is not None and first.exists() and second.exists() and first.resolve() == second.resolve():
        raise TagmaskError(f"{data}: is given twice to `tagmask {verb}`; give what tagmask made first, then the data")
    if made is not None and not _is_made(first) and _is_made(second):
        option = ["--images"] if verb.startswith("export") else []
        right = shlex.join(["tagmask", *verb.split(), str(data), *option, str(made)])
        raise TagmaskError(f"{data}: was made by tagmask and comes first, {made} second: {right}")
    if (second / "run.json").is_file():
        mend = "give the data that it is to be used on"
        if made is None:
            mend = f"to go on with it: {shlex.join(['tagmask', *verb.split(), '-o', str(data)])}"
        raise TagmaskError(f"{data}: is a run folder, not data; {mend}")


def _is_made(folder: Path) -> bool:
    """Tell whether a folder holds a run, or masks or CAMs that tagmask wrote."""
    from tagmask.data.ledger import LEDGER

    return (folder / "run.json").is_file() or (folder / LEDGER).is_file()


class _Messages(logging.Handler):
    """Prints messages as they are: a `[/old]` in a path is no markup, and a line is as long as it is."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message to what is stderr at that time; while a progress bar is shown, that prints above it."""
        print(self.format(record), file=sys.stderr)


def show_messages() -> None:
    """Print what the library logs at INFO and above on stderr; a second call changes nothing."""
    logger = logging.getLogger("tagmask")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    logger.setLevel(logging.INFO)


def tell(
    written: Any,
    place: str | None = None,
    *,
    run: Path | None = None,
    images: Any = None,
    settings: list[str] | None = None,
) -> None:
    """Print what `label`, `predict` or `refine` wrote and left out; exit status 1 where they wrote nothing.

    Args:
        written: what they return.
        place: the output as the user named it, where it is no folder of this machine.
        run: what labelled them, if a run did.
        images: what was labelled, as the user named it; None for the run's own data.
        settings: overrides of the recipe; how data are read counts for the page, too.
    """
    from tagmask.engine.progress import report_skipped

    report_skipped(written.skipped)
    typer.echo(f"{written.images} masks: {place or written.folder}")
    if written.kept:
        typer.echo(
            f"{written.kept} of them were there before and stay as they were; to make them anew choose another -o"
        )
    page = ""
    if run is not None:
        shown = ["--images", str(images)] if images is not None else []
        review = ["--masks", str(written.folder), "--review", "reviews/first.csv"]
        review += [part for text in settings or () if text.startswith("data.") for part in ("--set", text)]
        page = f" ({shlex.join(['tagmask', 'serve', str(run), *shown, *review])})"
    if written.lacking:
        typer.echo(
            f"{len(written.lacking)} of {written.images} masks hold nothing of one or more of their tags, such as "
            f"{written.lacking[0]}: look at them first{page}"
        )
    elif written.plain:
        typer.echo(
            f"{written.images} of {written.images} masks hold nothing of any class, all is background: look at them "
            f"first{page}; docs/troubleshooting.md says what helps"
        )
    if not written.images:
        raise typer.Exit(1)
