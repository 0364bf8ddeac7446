"""JSON and XML of people one does not know: whatever is wrong with such a file is one error that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tagmask.errors import TagmaskError


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        TagmaskError: it is no JSON, is not UTF-8, is nested deeper than Python recurses, or holds a whole number of
            more digits than Python converts (4,300); the message names no file.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise TagmaskError(f"is no JSON ({error.msg} at {place})") from error
    except RecursionError as error:
        raise TagmaskError("is no JSON (nested too deeply)") from error
    except ValueError as error:
        raise TagmaskError(f"is no JSON ({error})") from error


def parse_xml(file: Path) -> ElementTree.Element:
    """Parse an XML file; entities that multiply are refused by expat, and none is fetched from elsewhere.

    Raises:
        TagmaskError: it cannot be read, is no XML, or is of an unknown encoding.
    """
    try:
        return ElementTree.parse(file).getroot()
    except OSError as error:
        raise TagmaskError(f"{file}: cannot be read ({error.strerror}); correct the path") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise TagmaskError(f"{file}: is no XML ({error}); export it again") from error
