"""A dictionary of arrays saved by `numpy.save`, read without running anything the file says.

`numpy.save` pickles a dictionary, and a pickle names functions that whoever loads it calls. Here the few names that
such a file needs stand for inert records that remember what they are given, every other name is refused, and the arrays
are built from what was remembered, by us. Before that, one pass over the pickle's instructions bounds what they can ask
for: a few hundred bytes could otherwise take gigabytes, or minutes.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from tagmask.errors import TagmaskError

NUMBERS = "biuf"  # dtype kinds that may stand in an array; text may stand in a scalar
MAX_STEPS = 10_000_000  # instructions of a pickle; numpy.save writes about 20 for each image
MAX_TUPLE = 100  # values in a tuple, those of tuples within it included; hashing visits them all
MAX_DIGITS = 18  # of a number that names an image
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
            code = file.read()
        _check_steps(code)
        content = _Inert(io.BytesIO(code), path).load()
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


TUPLES = "TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE"
GETS = "GET BINGET LONG_BINGET"
PUTS = "PUT BINPUT LONG_BINPUT MEMOIZE"
OTHER, MARK, TUPLE, GET, PUT = range(5)
KINDS = {MARK: "MARK", TUPLE: TUPLES, GET: GETS, PUT: PUTS}
# How pickletools says that the length of an argument stands before it, in so many bytes; -1 is up to the line's end.
PREFIXES = {-2: 1, -3: 4, -4: 4, -5: 8}


def _known_steps() -> dict[int, tuple[int, int, bool, int, int]]:
    """Describe each instruction that a pickle of arrays has: kind, length of argument, mark, values taken and left."""
    names = "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2"
    names += " LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8"
    names += " BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT"
    names += f" DICT SETITEM SETITEMS {TUPLES} {GETS} {PUTS}"
    known = {}
    for step in pickletools.opcodes:
        if step.name in names.split():
            before, mark = step.stack_before, pickletools.markobject in step.stack_before
            taken = before.index(pickletools.markobject) if mark else len(before)
            kind = next((kind for kind, group in KINDS.items() if step.name in group.split()), OTHER)
            length = 0 if step.arg is None else step.arg.n
            known[ord(step.code)] = (kind, length, mark, taken, len(step.stack_after))
    return known


STEPS = _known_steps()


def _check_steps(code: bytes) -> None:
    """Refuse a pickle whose instructions take more memory or time to follow than its length explains.

    Every object is about as large as its bytes, but for two things. A place in the memo is given by a number, which may
    be 2**32; so places go no further than the file is long. And a tuple may hold one tuple twice, at every level; what
    hashes it visits 2**levels values and calls itself for each level. So tuples hold few values.

    Raises:
        ValueError: an instruction is unknown, cut short, or beyond the limits.
    """
    values: list[int] = []  # how many values each object on the stack holds as a tuple; 1 for what is none
    marks: list[int] = []
    memo: dict[int, int] = {}
    position, end = 0, len(code)
    for _ in range(MAX_STEPS):
        if position >= end:
            raise ValueError("it is cut short")
        step = code[position]
        if step not in STEPS:
            raise ValueError(f"instruction {bytes([step])!r} has no place in it")
        kind, length, mark, taken, left = STEPS[step]
        start = position + 1
        if length in PREFIXES:
            width = PREFIXES[length]
            length = int.from_bytes(code[start : start + width], "little")
            start += width
        elif length < 0:
            length = code.index(b"\n", start) + 1 - start
            if step == ord("c"):  # module and name, a line each
                length = code.index(b"\n", start + length) + 1 - start
        argument, position = code[start : start + length], start + length
        if step == ord("."):
            return
        if kind == MARK:
            marks.append(len(values))
            continue
        bottom = (marks.pop() if mark else len(values)) - taken
        if bottom < 0:
            raise ValueError("it takes a value that is not there")
        size = 1
        if kind == TUPLE:
            size += sum(values[bottom:])
            if size > MAX_TUPLE:
                raise ValueError(f"it holds a tuple of over {MAX_TUPLE} values")
        elif kind in (GET, PUT):
            place = int(argument) if step in b"gp" else int.from_bytes(argument, "little") if argument else len(memo)
            if not 0 <= place <= end:
                raise ValueError(f"it names place {place} of a file of {end} bytes")
            if kind == PUT:
                memo[place] = values[-1]
            size = memo[place]
        del values[bottom:]
        values += [size] * left
    raise ValueError(f"it has over {MAX_STEPS} instructions")


class _DType:
    """A dtype as a file describes it."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *flags: Any) -> None:
        if not isinstance(code, str):
            raise TypeError("a dtype that is no text")
        self.dtype = None if code in ("O8", "O4", "O") else np.dtype(code)
        if self.dtype is not None and self.dtype.kind not in NUMBERS + "U":
            raise ValueError(f"an array of {code}")

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags)
        if self.dtype is not None and state[1] in ("<", ">", "|", "="):
            size = state[5] if self.dtype.kind == "U" else self.dtype.itemsize
            self.dtype = np.dtype(f"{state[1]}{self.dtype.kind}{size // 4 if self.dtype.kind == 'U' else size}")


class _Array:
    """An array as a file describes it: of objects in `items`, else of numbers in `values`."""

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
    """A function that a file may name; it has neither state nor attributes that a file could change."""

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
        if self.name == "encode" and arguments[1:] == ("latin1",) and isinstance(arguments[0], str):
            return arguments[0].encode("latin1")
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
    """An unpickler that hands out records in place of numpy's functions, and refuses every other name."""

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
    if not isinstance(data, bytes | bytearray | str) or not all(isinstance(side, int) for side in shape):
        raise ValueError("an array of no bytes, or of no shape")
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(raw)} bytes for an array of {dtype} {shape}")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")


def _key(key: Any) -> str | int:
    if isinstance(key, np.str_ | str):
        return str(key)
    if isinstance(key, int | np.integer) and 0 <= key < 10**MAX_DIGITS:
        return int(key)
    raise TypeError(f"key {key!r:.80} is no image name")


def _value(value: Any) -> np.ndarray:
    if isinstance(value, list) and all(isinstance(part, int | float | np.number) for part in value):
        return np.asarray(value, dtype=np.float64)
    if not isinstance(value, _Array) or value.values is None or value.values.dtype.kind not in NUMBERS:
        raise TypeError(f"a value is {type(value).__name__.strip('_').lower()} and no vector of numbers")
    return value.values
