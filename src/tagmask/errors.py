"""The one exception a user is meant to read."""


class TagmaskError(Exception):
    """Something the user can mend.

    The message names the file, key or row, says what was expected, and how to put it right. The command line prints
    it without a traceback; everything else that is raised is a bug of ours.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
