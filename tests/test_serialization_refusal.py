"""gpucnn.load and files made by hand: damaged, hostile, or with more in them than weights; refused with the reason."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_checks import SEED

import gpucnn
from gpucnn.serialization import WeightFileError
from gpucnn.testing import assert_equal

FACTS = Path(__file__).with_name("facts")


def archive(content: bytes, *, compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """A zip file as torch.save lays it out, around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, data in {"data.pkl": content, **members}.items():
            made.writestr(f"x/{name}", data)
    return file.getvalue()


class Runs:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


HEAD = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"


def tensor(rest: bytes) -> bytes:
    """A pickled tensor over the storage '0' of four floats, with `rest` for its offset, sizes and strides."""
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + rest + b"tR."


FOUR, DATA = tensor(b"K\0K\x04\x85K\x01\x85"), {"data/0": b"\0" * 16}


def entries(raw: bytes) -> list[bytes]:
    """What a zip archive's directory says of each member."""
    return [b"PK\x01\x02" + entry for entry in raw[: raw.index(b"PK\x05\x06")].split(b"PK\x01\x02")[1:]]


def with_directory(raw: bytes, *listed: bytes) -> bytes:
    """A zip archive with another directory."""
    start, end, whole = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06"), b"".join(listed)
    return raw[:start] + whole + raw[end : end + 8] + struct.pack("<HHIIH", *[len(listed)] * 2, len(whole), start, 0)


def safetensors(dtype_and_shape: str, content: bytes) -> bytes:
    """A file with one tensor x."""
    header = f'{{"x":{{"dtype":{dtype_and_shape},"data_offsets":[0,{len(content)}]}}}}'.encode()
    return struct.pack("<Q", len(header)) + header + content


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Runs(exec, "raise SystemExit('the pickle ran')"), "builtins.exec"),
        ({"a": [Runs(eval, "1/0")]}, "builtins.eval"),
        (Runs(pickle.loads, b""), "pickle.loads"),
        ({1, 2}, None),
        (np.float64(1.0), "multiarray.scalar"),
        (complex(1, 2), "builtins.complex"),
        (np.dtype, "numpy.dtype"),
        (bytearray(b"x"), None),
    ],
    ids=["exec", "eval", "loads", "set", "numpy", "complex", "dtype", "bytearray"],
)
def test_code_is_refused_by_its_name(value: Any, name: str | None, protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps(value, protocol)
    for kind, raw in (("zip", archive(content)), ("legacy", HEAD + content)):
        (tmp_path / kind).write_bytes(raw)
        with pytest.raises(WeightFileError, match="refused") as caught:
            gpucnn.load(tmp_path / kind)
        assert name is None or name in str(caught.value).replace("__builtin__", "builtins")
        assert str(tmp_path / kind) in str(caught.value)


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightFileError, match=r"names torch\.nn\.modules\.container\.Sequential, .*state_dict"):
        gpucnn.load(FACTS / "module.pth")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "neither a safetensors file nor one of PyTorch's"),
        (b"hello, this is no weight file", "neither"),
        (np.arange(9.0).tobytes(), "neither"),
        (archive(b"."), "damaged pickle: it ends with 0 values"),
        (archive(b"NN."), "it ends with 2 values"),
        (archive(b""), "damaged pickle"),
        (archive(b"S'\\d'\n."), "damaged pickle"),  # which Python's own reader would warn of
        (archive(b"]N"), "damaged pickle"),
        (archive(b"N.", **{"constants.pkl": b""}), "TorchScript"),
        (archive(b"N." * 500, compression=zipfile.ZIP_DEFLATED), "data.pkl is compressed"),
        (archive(b"ctorch\nFloatStorage\n)R."), "calls torch.FloatStorage"),
        (archive(b"]K\x01Q."), "no storage"),
        (archive(b"N]b."), "sets the state of a NoneType"),
        (archive(b"](X\x01\0\0\0xK\x01u."), "sets an item of a list"),
        (archive(b"}]K\x01s."), "list as a key"),
        (archive(FOUR), "storage '0' is missing"),
        (archive(FOUR, **{"data/0": b"\0" * 15}), "15 bytes for 4 numbers of 4 bytes"),
        (archive(tensor(b"K\x01K\x04\x85K\x01\x85"), **{"data/0": b"\0" * 16}), "does not fit its 4 numbers"),
        (archive(tensor(b"K\x04K\x05\x85K\x00\x85"), **{"data/0": b"\0" * 16}), "does not fit its 4 numbers"),
        (archive(tensor(b"K\0(K\x01K\x00\x8a\x08" + b"\xff" * 7 + b"\x7ft(K\0K\0K\0t"), **DATA), "too big"),
        (archive(tensor(b"K\0(\x8a\x09" + b"\xff" * 8 + b"\0t(K\0t"), **DATA), "non-negative integers"),
        (archive(tensor(b"K\0(" + b"K\x01" * 65 + b"t(" + b"K\x01" * 65 + b"t"), **DATA), "65 axes, more than 64"),
        (archive(FOUR.replace(b"K\x04tQ", b"\x8a\x09" + b"\xff" * 8 + b"\0tQ"), **DATA), "plain count"),
        (archive(FOUR[:-1].replace(b"tR", b"\x89N}X\3\0\0\0neg\x88stR."), **DATA), "still to be negated or conj"),
        (archive(STORAGE + b".", **DATA), "holds a Storage by itself"),
        (archive(b"](}K\x01ctorch\nHalfStorage\nsK\x02e."), "holds torch.HalfStorage"),
        (archive(b"(\x85."), "holds a type"),
        (archive(b"K\x01K\x02\x93."), "a name that is no string"),
        (archive(b"}\x8a\x09" + bytes(8) + b"\x01Ns."), "integer of more than 64 bits as a key"),
        (archive(b"ctorch\nSize\n](NNNe\x85R."), "a Size that is no tuple"),
        (archive(b"ccollections\nCounter\nK\x01\x85R."), "a Counter of something else"),
        (with_directory(archive(b"N."), *2 * entries(archive(b"N."))), "two members of the same name"),
        (archive(FOUR, **DATA).replace(struct.pack("<II", 16, 16), struct.pack("<II", 16, 1 << 20)), "larger than it"),
        (archive(tensor(b"K\0K\x02\x85J\xff\xff\xff\xff\x85"), **{"data/0": b"\0" * 16}), "non-negative integers"),
        (archive(tensor(b"K\0K\x02\x85)"), **{"data/0": b"\0" * 16}), "non-negative integers"),
        (archive(tensor(b"K\0]]"), **{"data/0": b"\0" * 16}), "non-negative integers"),
        (pickle.dumps({"a": 1}, 2), "a pickle, but not one that torch.save wrote"),
        (HEAD[:40], "damaged pickle"),
        (HEAD + FOUR, "damaged pickle"),
        (HEAD + FOUR + pickle.dumps([], 2), "storage '0' is missing"),
        (HEAD + FOUR + pickle.dumps(["0"], 2) + struct.pack("<Q", 4), "truncated"),
        (
            HEAD + FOUR + pickle.dumps(["0"], 2) + struct.pack("<Q", 3),
            "3 numbers instead of 4",
        ),
        (HEAD + pickle.dumps({}, 2) + pickle.dumps(["0"], 2) + bytes(8), "no tensor is in"),
        (HEAD + pickle.dumps({}, 2) + pickle.dumps([["0"]], 2), "no tensor is in"),
        (HEAD + pickle.dumps({}, 2) + pickle.dumps(7, 2), "no list of storages"),
        (archive(b"c" + b"x" * 5000 + b"\ny\n."), "names xxxxx.* [.][.][.]$"),
        (safetensors('"F32","shape":[0,9223372036854775807,4]', b""), "x has a shape that no array has"),
        (safetensors('"U8","shape":[' + ",".join("1" * 70) + "]", b"0"), "x has a shape that no array has"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_bad_files_are_refused_with_the_reason(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(raw)
    with pytest.raises(WeightFileError, match=rf"x\.pth: .*{message}"):
        gpucnn.load(tmp_path / "x.pth")


def test_a_good_tensor_by_hand_is_read(tmp_path: Path) -> None:
    """So that the ones above are refused for what is wrong with them."""
    numbers = np.arange(4, dtype="<f4")
    (tmp_path / "x.pth").write_bytes(archive(tensor(b"K\x01K\x02\x85K\x02\x85"), **{"data/0": numbers.tobytes()}))
    assert_equal(gpucnn.load(tmp_path / "x.pth"), numbers[1::2])


def test_whatever_byte_stands_for_true_is_true(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(archive(FOUR.replace(b"Float", b"Bool"), **{"data/0": b"\0\1\2\xff"}))
    (tmp_path / "x.safetensors").write_bytes(safetensors('"BOOL","shape":[4]', b"\0\1\2\xff"))
    for name in ("x.pth", "x.safetensors"):
        found = gpucnn.load(tmp_path / name)
        array = found["x"] if isinstance(found, dict) else found
        assert array.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_an_expanded_tensor_takes_the_memory_of_its_storage(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(archive(tensor(b"K\x01K\x03K\x02\x86K\x00K\x02\x86"), **{"data/0": bytes(16)}))
    found = gpucnn.load(tmp_path / "x.pth")
    assert (found.shape, found.strides) == ((3, 2), (0, 8))


def test_bfloat16_in_safetensors_is_widened(tmp_path: Path) -> None:
    content = np.array([1.0, -2.5, 3.25], np.float32).view(np.uint32) >> 16
    (tmp_path / "x").write_bytes(safetensors('"BF16","shape":[3]', content.astype("<u2").tobytes()))
    assert_equal(gpucnn.load(tmp_path / "x")["x"], np.array([1.0, -2.5, 3.25], np.float32))


def test_what_has_no_arrays_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors('"F8_E4M3","shape":[1]', b"\0"))
    with pytest.raises(WeightFileError, match=r"x has dtype F8_E4M3"):
        gpucnn.load(tmp_path / "x")


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """Ten storages of a megabyte that share their bytes would take ten times the file's size."""
    raw = archive(FOUR, **{"data/0": bytes(1 << 20)})
    pickled, first = entries(raw)
    raw = with_directory(raw, pickled, *[first.replace(b"data/0", b"data/%d" % i) for i in range(10)])
    (tmp_path / "x.pth").write_bytes(raw)
    with pytest.raises(WeightFileError, match="larger than itself, truncated or overlapping"):
        gpucnn.load(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "again",
    [
        b"c_codecs\nencode\nq\x00X\x06\0\0\0latin1q\x01X\0\0\x08\0" + b"x" * (1 << 19) + b"q\x02](",
        b"ccollections\nOrderedDict\nq\x00](" + b"K\x01K\x02\x86" * (1 << 15) + b"eq\x02](",
    ],
    ids=["bytes", "dicts"],
)
def test_a_short_pickle_does_not_fill_the_memory(again: bytes, tmp_path: Path) -> None:
    call = b"h\x00h\x02h\x01\x86R" if b"encode" in again else b"h\x00h\x02\x85R"
    (tmp_path / "x.pth").write_bytes(archive(again + 100_000 * call + b"e."))
    with pytest.raises(WeightFileError, match="called with the same data over and over"):
        gpucnn.load(tmp_path / "x.pth")


def test_a_pickle_that_explodes_when_it_is_hashed_or_printed_does_not(tmp_path: Path) -> None:
    nested = b")" + b"2\x86".replace(b"2", b"q\x00h\x00") * 60  # a pair of itself, sixty times over
    for rest in (b"}" + nested + b"Ns.", nested + b"Q.", nested + b"]b.", nested + b"h\0\x93.", nested + b"\x85R."):
        (tmp_path / "x.pth").write_bytes(archive(rest))
        with pytest.raises(WeightFileError):
            gpucnn.load(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_truncated_files_are_refused_at_every_length(name: str, tmp_path: Path) -> None:
    raw = (FACTS / f"{name}.pth").read_bytes()
    whole = {"zip": len(raw), "legacy": len(raw)}[name]
    for length in range(0, whole, 29):
        (tmp_path / "x").write_bytes(raw[:length])
        with pytest.raises(WeightFileError):
            gpucnn.load(tmp_path / "x")


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_flipped_bytes_are_refused_or_harmless(name: str, tmp_path: Path) -> None:
    """Whatever the damage, there is no other outcome than an array tree or the one error."""
    raw = (FACTS / f"{name}.pth").read_bytes()
    rng = np.random.default_rng(SEED)
    refused = 0
    for _ in range(600):
        damaged = bytearray(raw)
        for position in rng.integers(0, len(raw), rng.choice([1, 1, 4])):
            damaged[position] = rng.integers(0, 256)
        (tmp_path / "x").write_bytes(damaged)
        try:
            gpucnn.load(tmp_path / "x")
        except WeightFileError:
            refused += 1
    assert refused > 100


def test_safetensors_are_refused_when_truncated(tmp_path: Path) -> None:
    gpucnn.save({"x": np.ones((3, 3)), "y": np.zeros(2)}, tmp_path / "x")
    raw = (tmp_path / "x").read_bytes()
    for length in range(0, len(raw), 5):
        (tmp_path / "x").write_bytes(raw[:length])
        with pytest.raises(WeightFileError):
            gpucnn.load(tmp_path / "x")
