"""MXNet's binary lists of arrays, and what damaged ones say."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.errors import TagmaskError
from tagmask.models.mxnet import ELEMENTS, VERSION_1, VERSION_2, read_mxnet_params


def array_bytes(array: np.ndarray, version: int = 0, storage: int = 0) -> bytes:
    kind = [np.dtype(name) for name in ELEMENTS].index(array.dtype)
    if version:
        head = struct.pack("<I", {1: VERSION_1, 2: VERSION_2}[version])
        head += struct.pack("<i", storage) if version == 2 else b""
        head += struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
    else:
        head = struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape)
    return head + struct.pack("<iii", 1, 0, kind) + array.tobytes()


def file_bytes(arrays: Mapping[str, bytes]) -> bytes:
    names = b"".join(struct.pack("<Q", len(name.encode())) + name.encode() for name in arrays)
    count = struct.pack("<Q", len(arrays))
    return struct.pack("<QQ", 0x112, 0) + count + b"".join(arrays.values()) + count + names


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_every_version_and_element_type(tmp_path: Path, version: int, dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) - (0 if dtype == "u1" else 7)).astype(dtype)
    content = file_bytes({"arg:a_weight": array_bytes(array, version), "aux:b": array_bytes(array[0, 0], version)})
    read = read_mxnet_params(write(tmp_path / "a.params", content))
    assert list(read) == ["arg:a_weight", "aux:b"]
    assert torch.equal(read["arg:a_weight"], torch.from_numpy(array))
    assert torch.equal(read["aux:b"], torch.from_numpy(array[0, 0]))


def test_an_empty_array_is_left_out(tmp_path: Path) -> None:
    content = file_bytes({"nothing": struct.pack("<I", 0), "one": array_bytes(np.ones(1, np.float32))})
    assert list(read_mxnet_params(write(tmp_path / "a.params", content))) == ["one"]


GOOD = file_bytes({"arg:x": array_bytes(np.ones((2, 2), np.float32), 2), "y": array_bytes(np.ones(3, np.float32))})


@settings(deadline=None, max_examples=40)
@given(length=st.integers(0, len(GOOD) - 1))
def test_a_file_cut_anywhere_names_itself(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = write(tmp_path_factory.mktemp("cut") / "cut.params", GOOD[:length])
    with pytest.raises(TagmaskError, match=r"cut\.params"):
        read_mxnet_params(path)


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_a_wrong_byte_is_read_or_refused_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    content = bytearray(GOOD)
    content[place] = value
    path = write(tmp_path_factory.mktemp("wrong") / "wrong.params", bytes(content))
    with contextlib.suppress(TagmaskError):
        assert all(isinstance(array, torch.Tensor) for array in read_mxnet_params(path).values())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{}" * 40, "not a list of MXNet arrays"),
        (struct.pack("<QQQ", 0x112, 0, 2**62) + b"\0" * 64, "more than the file can hold"),
        (file_bytes({"a": struct.pack("<I3I", 3, 2**31, 2**31, 2**31) + struct.pack("<iii", 1, 0, 0)}), "cut short"),
        (file_bytes({"a": struct.pack("<I", 77) + b"\0" * 400}), "77 dimensions"),
        (file_bytes({"a": array_bytes(np.ones(2, np.float32), 2, storage=1)}), "only dense arrays"),
        (file_bytes({"a": struct.pack("<IIiii", 1, 1, 1, 0, 9) + b"\0" * 8}), "element type 9"),
        (file_bytes({"": array_bytes(np.ones(1, np.float32))})[:-16] + bytes(8), "0 different names"),
    ],
)
def test_wrong_files_say_why(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(TagmaskError, match=said):
        read_mxnet_params(write(tmp_path / "bad.params", content))
