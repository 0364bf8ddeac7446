import os
import pickle
import resource
import struct
import time

import numpy as np
import pytest

from tagmask.data.npy_dict import read_npy_dict
from tagmask.errors import TagmaskError


def save(path, content, **options):
    np.save(path, content, allow_pickle=True, **options)
    return path


def save_pickle(path, code: bytes):
    """A .npy file whose pickle is the given bytes."""
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(code)
    return path


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "float64", "uint8", "bool", "int64", "float16"])
def test_dictionaries_come_back_as_numpy_saved_them(tmp_path, dtype):
    saved = {"2007_000032": np.array([0, 1, 1], dtype), "ü": np.array([1, 0, 0], dtype)[::-1]}
    found = read_npy_dict(save(tmp_path / "a.npy", saved))
    assert list(found) == list(saved)
    for name, vector in saved.items():
        np.testing.assert_array_equal(found[name], vector)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_keys_that_numpy_made(tmp_path, protocol):
    content = {np.str_("a_1"): np.ones(2), 2007000032: np.zeros(2), np.int64(9): np.ones((2, 3), order="F")}
    array = np.empty((), dtype=object)
    array[()] = content
    found = read_npy_dict(save_pickle(tmp_path / "a.npy", pickle.dumps(array, protocol)))
    assert list(found) == ["a_1", 2007000032, 9]
    assert found[9].shape == (2, 3)


def test_names_of_older_and_newer_numpy_are_the_same(tmp_path):
    array = np.empty((), dtype=object)
    array[()] = {"a": np.array([1.0, 0.0])}
    code = pickle.dumps(array, 2)
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"  # as numpy 2 and 1 write
    assert (new in code) != (old in code)
    for text in (code.replace(old, new), code.replace(new, old)):
        np.testing.assert_array_equal(read_npy_dict(save_pickle(tmp_path / "a.npy", text))["a"], [1, 0])


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function", [os.system, eval, exec, np.load, pickle.loads, getattr], ids=lambda function: function.__name__
)
def test_malicious_pickle_runs_nothing(tmp_path, function, protocol):
    proof = tmp_path / "proof"
    text = f"touch {proof}" if function is os.system else f"open({str(proof)!r}, 'w')"
    code = pickle.dumps({"a": Calls(function, text)}, protocol)
    with pytest.raises(TagmaskError, match=r"bad\.npy: asks to run .*; nothing was run"):
        read_npy_dict(save_pickle(tmp_path / "bad.npy", code))
    assert not proof.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy\nndarray\n)\x81.",  # makes an array by its class
        b"cnumpy\nndarray\n(K\x01tR.",  # calls the class
        b"cnumpy\ndtype\n}X\x04\x00\x00\x00nameX\x01\x00\x00\x00xsb.",  # changes a function
        b"(cnumpy\nndarray\no.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",  # another codec
        b"(inumpy\nndarray\n.",
        b"\x82\x01.",  # an extension
        b"Pabc\n.",  # a persistent id
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01(K\xfftcnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R\x89C\x01atb.",
        b"cnumpy\ndtype\nX\x05\x00\x00\x00i4,i4\x85R.",  # fields
        b"\x8e" + struct.pack("<Q", 1 << 60),  # says it is an exabyte
        b"garbage",
        b"",
    ],
)
def test_bad_input_pickles_of_allowed_names(tmp_path, code):
    with pytest.raises(TagmaskError, match="expected what numpy"):
        read_npy_dict(save_pickle(tmp_path / "bad.npy", code))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(3), r"holds an array of float64 \(3,\) and no dictionary"),
        (np.array([{"a": 1}, {"b": 2}]), r"holds an array of object \(2,\)"),
        (np.array([["a"]], dtype=object), "holds no dictionary"),
        ({"a": "cat"}, "a value is str and no vector"),
        ({"a": {"b": np.ones(1)}}, "a value is dict and no vector"),
        ({"a": np.array(["x"], dtype=object)}, "a value is array and no vector"),
        ({(1, 2): np.ones(1)}, r"key \(1, 2\) is no image name"),
    ],
)
def test_bad_input_other_content(tmp_path, content, message):
    with pytest.raises(TagmaskError, match=message):
        read_npy_dict(save(tmp_path / "a.npy", content))


def test_bad_input_missing_file_and_no_npy(tmp_path):
    with pytest.raises(TagmaskError, match=r"gone\.npy: cannot be read"):
        read_npy_dict(tmp_path / "gone.npy")
    (tmp_path / "a.npy").write_bytes(b"not one")
    with pytest.raises(TagmaskError, match=r"a\.npy: damaged"):
        read_npy_dict(tmp_path / "a.npy")


def doubled(levels: int, join) -> bytes:
    """Code of objects that each hold the one before twice: small ones, and written out the last is of 2**n values."""
    steps = b"".join(join(b"h" + bytes([level])) + b"\x94" for level in range(levels))
    return b")\x94" + steps


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"}r" + struct.pack("<I", 150_000_000) + b".", "names place 150000000 of a file of"),  # asked for 2.4 GB
        (b"}p150000000\n.", "names place 150000000"),
        (doubled(40, lambda last: last + last + b"\x86") + b"}h\x28K\x01s.", "a tuple of over 100 values"),  # no end
        (b"}" + b")" + b"\x85" * 2_000_000 + b"K\x01s.", "a tuple of over 100 values"),  # a segmentation fault
        (doubled(24, lambda last: b"](" + last + last + b"e") + b"}X\x01\x00\x00\x00ah\x18s.", "a value is list"),
        (
            b"}cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R\x8a\x05\0\0\0\0\1tRK\x01s.",
            "an array of no bytes",  # bytes(2**32)
        ),
        (b"c_codecs\nencode\n(](K\x01eX\x06\x00\x00\x00latin1tR.", "calls encode"),
        (b"}\x8a\x09" + b"\x7f" * 9 + b"K\x01s.", "is no image name"),
        (b"}K\x01", "cut short"),
        (b"u.", "not there|pop"),
        (b"}00.", "has no place in it"),  # POP
    ],
    ids=range(11),
)
def test_bad_input_small_files_that_ask_for_much(tmp_path, code, message):
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(TagmaskError, match=message):
        read_npy_dict(save_pickle(tmp_path / "bad.npy", code))
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 300_000  # kilobytes


def test_lists_of_numbers_are_vectors(tmp_path):
    np.testing.assert_array_equal(read_npy_dict(save(tmp_path / "a.npy", {"a": [0, 1, 1.0]}))["a"], [0, 1, 1])
