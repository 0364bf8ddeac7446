"""Reading MXNet's `.params` files without MXNet.

A file is: uint64 0x112, uint64 0; uint64 count and that many arrays; uint64 count and that many names, each a uint64
length and bytes. All numbers are little-endian. An array starts with a uint32 that tells its version:

- 0xF993FAC9 (version 2): int32 storage type (0 dense), shape as uint32 rank and int64 sides;
- 0xF993FAC8 (version 1): the same without storage type;
- anything else (before version 1): it is the rank itself, and the sides are uint32.

A rank of 0 ends an (empty) array; else int32 device type, int32 device number, int32 element type and the elements in
row-major order follow.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagmask.errors import TagmaskError

LIST_MAGIC = 0x112
VERSION_1, VERSION_2 = 0xF993FAC8, 0xF993FAC9
MOST_SIDES = 32
ELEMENTS = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")


def read_mxnet_params(path: Path) -> dict[str, Tensor]:
    """Read a `.params` file that MXNet saved, dense arrays only.

    Every length is held against the bytes that are left before anything is read or allocated.

    Returns:
        tensors by their names in the file, such as `arg:conv1a_weight`; empty arrays are left out.

    Raises:
        TagmaskError: another format, cut short, or an array that is not dense.
    """
    if path.stat().st_size < 32:
        raise TagmaskError(f"weights {path}: {path.stat().st_size} bytes are no MXNet file; download it again")
    reader = _Reader(path)
    magic, reserved, count = reader.numbers("<QQQ")
    if magic != LIST_MAGIC or reserved != 0:
        raise TagmaskError(f"weights {path}: not a list of MXNet arrays; give the .params file, not a .json")
    arrays = [reader.array() for _ in range(reader.check_count(count, at_least=4))]
    (count,) = reader.numbers("<Q")
    names = [reader.name() for _ in range(reader.check_count(count, at_least=8))]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        found = f"{len(arrays)} arrays, {len(set(names))} different names"
        raise TagmaskError(f"weights {path}: {found}; give a file whose arrays all have names")
    return {name: array for name, array in zip(names, arrays, strict=True) if array is not None}


class _Reader:
    """Reads a file from the front; whatever would lead beyond its end is an error that names the file."""

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, 0
        self.bytes = np.memmap(path, dtype=np.uint8, mode="r")

    def take(self, size: int) -> np.ndarray:
        left = len(self.bytes) - self.position
        if size > left:
            raise self.error(f"{size} bytes expected, {left} left; the file is cut short or damaged, download it again")
        self.position += size
        return self.bytes[self.position - size : self.position]

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)).tobytes())

    def check_count(self, count: int, at_least: int) -> int:
        """Return `count` if so many entries of `at_least` bytes each fit into the rest of the file."""
        if count * at_least > len(self.bytes) - self.position:
            raise self.error(f"a list of {count} entries, more than the file can hold; it is damaged")
        return count

    def array(self) -> Tensor | None:
        (magic,) = self.numbers("<I")
        if magic == VERSION_2:
            (storage,) = self.numbers("<i")
            if storage != 0:
                raise self.error(f"storage type {storage}; only dense arrays are read, save the weights as dense")
        shape = self.shape(magic)
        if not shape:
            return None
        _device, _number, kind = self.numbers("<iii")
        if not 0 <= kind < len(ELEMENTS):
            raise self.error(f"element type {kind}, which is none of float32, 64, 16, uint8, int32, int8, int64")
        dtype = np.dtype(ELEMENTS[kind])
        content = self.take(math.prod(shape) * dtype.itemsize)
        return torch.from_numpy(np.frombuffer(content.tobytes(), dtype=dtype).reshape(shape).copy())

    def shape(self, magic: int) -> tuple[int, ...]:
        versioned = magic in (VERSION_1, VERSION_2)
        rank = self.numbers("<I")[0] if versioned else magic
        if rank > MOST_SIDES:
            raise self.error(f"an array of {rank} dimensions; the file is damaged or of a later format")
        shape = self.numbers(f"<{rank}{'q' if versioned else 'I'}")
        if any(side < 1 for side in shape):
            raise self.error(f"an array of shape {shape}; the file is damaged or of a later format")
        return shape

    def name(self) -> str:
        (length,) = self.numbers("<Q")
        try:
            return self.take(length).tobytes().decode()
        except UnicodeDecodeError:
            raise self.error("a name that is not text; the file is damaged, download it again") from None

    def error(self, what: str) -> TagmaskError:
        return TagmaskError(f"weights {self.path}: at byte {self.position}: {what}")
