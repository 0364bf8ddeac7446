"""A dictionary of arrays saved by `numpy.save`, read without running anything the file says.

`numpy.save` pickles a dictionary, and a pickle names functions that whoever loads it calls. Here the few names that
such a file needs stand for inert records that remember what they are given, every other name is refused, and the arrays
are built from what was remembered, by us.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from tagmask.errors import TagmaskError

NUMBERS = "biuf"  # dtype kinds that may stand in an array; text may stand in a scalar
MEND = "expected what numpy.save writes of a dictionary from image name to a vector of 0 and 1"


def read_npy_dict(path: Path) -> dict[str | int, np.ndarray]:
    """Read a `.npy` file that holds one dictionary from names to arrays of numbers.

    Raises:
        TagmaskError: the file is missing or damaged, holds something else, or its pickle names anything beyond
            numpy's arrays, scalars and dtypes; nothing of it has been run.
    """
    try:
        with path.open("rb") as file:
            _check_header(path, file)
            content = _Inert(file, path).load()
    except TagmaskError:
        raise
    except OSError as error:
        raise TagmaskError(f"{path}: cannot be read ({error.strerror}); correct the path") from error
    except Exception as error:  # a damaged pickle makes the unpickler raise nearly anything
        raise TagmaskError(f"{path}: damaged, or no dictionary of arrays ({error}); {MEND}") from error
    found = content.items[0] if isinstance(content, _Array) and len(content.items) == 1 else content
    if not isinstance(found, dict):
        raise TagmaskError(f"{path}: holds no dictionary; {MEND}")
    try:
        return {_key(key): _value(value) for key, value in found.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise TagmaskError(f"{path}: {error}; {MEND}") from error


def _check_header(path: Path, file: BinaryIO) -> None:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind != "O" or math.prod(shape) != 1:
        raise TagmaskError(f"{path}: holds an array of {dtype} {shape} and no dictionary; {MEND}")


class _DType:
    """What a file says of a dtype."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *flags: Any) -> None:
        self.dtype = None if code in ("O8", "O4", "O") else np.dtype(str(code))
        if self.dtype is not None and self.dtype.kind not in NUMBERS + "U":
            raise ValueError(f"an array of {code}")

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags)
        if self.dtype is not None and state[1] in ("<", ">", "|", "="):
            size = state[5] if self.dtype.kind == "U" else self.dtype.itemsize
            self.dtype = np.dtype(f"{state[1]}{self.dtype.kind}{size // 4 if self.dtype.kind == 'U' else size}")


class _Array:
    """What a file says of an array: of objects in `items`, else of numbers in `values`."""

    __slots__ = ("items", "values")

    def __init__(self, *initial: Any) -> None:
        self.items: list[Any] = []
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_column, data = state
        if dtype.dtype is None:
            self.items = list(data)
        else:
            self.values = _filled(data, dtype.dtype, shape, "F" if by_column else "C")


class _Names:
    """A function that a file may name; has neither state nor attributes that a file could change."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"changes {self.name}")

    def __call__(self, *arguments: Any) -> Any:
        if self.name == "_reconstruct":
            return _Array()
        if self.name == "dtype":
            return _DType(*arguments)
        if self.name == "scalar":
            dtype, data = arguments
            return _filled(data, dtype.dtype, (), "C")[()]
        if self.name == "_frombuffer":
            data, dtype, shape, order = arguments
            array = _Array()
            array.values = _filled(data, dtype.dtype, shape, order)
            return array
        if self.name == "encode" and arguments[1:] == ("latin1",):
            return str(arguments[0]).encode("latin1")
        raise pickle.UnpicklingError(f"calls {self.name}")


ALLOWED = {
    **{(f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "_frombuffer" for core in ("core", "_core")},
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    # How Python 3 writes bytes for the protocol that numpy took before 1.17.
    ("_codecs", "encode"): "encode",
}


class _Inert(pickle.Unpickler):
    """Hands out records in place of numpy's functions, and refuses every other name."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise TagmaskError(
                f"{self.path}: asks to run {module}.{name}, which a table of tags never needs; nothing was run. Do not"
                " use this file with any other program either; get the labels again from whoever made them"
            )
        return _Names(ALLOWED[module, name])


def _filled(data: Any, dtype: np.dtype | None, shape: Any, order: str) -> np.ndarray:
    if dtype is None:
        raise ValueError("an object where numbers are expected")
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(raw)} bytes for an array of {dtype} {shape}")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")


def _key(key: Any) -> str | int:
    if isinstance(key, np.str_ | str):
        return str(key)
    if isinstance(key, int | np.integer):
        return int(key)
    raise TypeError(f"key {key!r} is no image name")


def _value(value: Any) -> np.ndarray:
    if isinstance(value, list):
        return np.asarray(value, dtype=np.float64)
    if not isinstance(value, _Array) or value.values is None or value.values.dtype.kind not in NUMBERS:
        raise TypeError(f"a value is {type(value).__name__.strip('_').lower()} and no vector of numbers")
    return value.values
