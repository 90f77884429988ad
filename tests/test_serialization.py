"""gpucnn.load and gpucnn.save: PyTorch's files in both formats and safetensors, whole and in every state of damage."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_checks import SEED

import gpucnn
from gpucnn import nn
from gpucnn.serialization import WeightFileError
from gpucnn.testing import assert_equal

FACTS = Path(__file__).with_name("facts")
NUMBERS = [0.0, -1.5, 2.0, 0.125]
DTYPES = {
    **{"float64": "float64", "float16": "float16", "bfloat16": "float32"},
    **{name: name for name in ("int64", "int32", "int16", "int8", "uint8", "bool")},
}


# ------------------------------------------------------------------------------------------------- what PyTorch wrote


@pytest.mark.parametrize("format", ["zip", "legacy"])
def test_pytorchs_files_are_read_as_they_were_written(format: str) -> None:
    found = gpucnn.load(FACTS / f"{format}.pth")
    assert list(found) == ["state_dict", "epoch", "plain"]
    assert (found["epoch"], found["plain"]) == (3, [1, (2.5, "x", None, True, b"ab"), {"nested": -(10**30)}])
    state = found["state_dict"]
    for name, dtype in DTYPES.items():
        expected = NUMBERS if "float" in name else [0, 1, 1] if name in ("int8", "uint8", "bool") else [0, 1, 2]
        assert_equal(state[name], np.array(expected, dtype), dtype=dtype, name=name)
    assert_equal(state["weight"], np.arange(12, dtype=np.float32))
    assert_equal(state["transposed"], np.array([[2, 5], [3, 6], [4, 7]], np.float32))
    assert np.shares_memory(state["transposed"], state["weight"])
    assert_equal(state["parameter"], np.ones((2, 1, 1, 1), np.float32))
    assert (state["scalar"].shape, int(state["scalar"]), state["nothing"].shape) == ((), 3, (0, 3))


def test_nothing_of_torch_is_imported() -> None:
    import subprocess

    code = f"import sys, gpucnn; gpucnn.load({str(FACTS / 'zip.pth')!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.peers
@pytest.mark.parametrize("legacy", [False, True])
def test_a_networks_weights_arrive(legacy: bool, torch: Any, tmp_path: Path) -> None:
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    torch.save(theirs.state_dict(), tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    ours = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(8, 2))
    assert ours.load_state_dict(gpucnn.load(tmp_path / "x.pt")) == ([], [])
    for name, tensor in theirs.state_dict().items():
        assert_equal(ours.state_dict()[name], tensor.numpy(), name=name)
    x = np.random.default_rng(SEED).standard_normal((2, 3, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(ours(gpucnn.tensor(x)).numpy(), theirs(torch.tensor(x)).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.peers
def test_big_endian_files_are_read(torch: Any, tmp_path: Path) -> None:
    values = torch.tensor([1.0, -2.5, 3.25])
    torch.save({"x": values, "h": values.bfloat16()}, tmp_path / "little.pt")
    with zipfile.ZipFile(tmp_path / "little.pt") as little, zipfile.ZipFile(tmp_path / "big.pt", "w") as big:
        for name in little.namelist():
            content = little.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            elif "/data/" in name:
                content = np.frombuffer(content, "<f4" if len(content) == 12 else "<u2").byteswap().tobytes()
            big.writestr(name, content)
    found = gpucnn.load(tmp_path / "big.pt")
    assert_equal(found["x"], values.numpy())
    assert_equal(found["h"], values.numpy())


# --------------------------------------------------------------------------------------------------- safetensors


def test_a_state_dict_makes_the_round_trip(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 2))
    gpucnn.save(model.state_dict(), tmp_path / "x.safetensors")
    found = gpucnn.load(tmp_path / "x.safetensors")
    assert set(found) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert_equal(found[name], tensor.numpy(), name=name)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_every_dtype_and_shape_makes_the_round_trip(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.random.default_rng(SEED).integers(0, 2, shape).astype(dtype)
    gpucnn.save({"x": array}, tmp_path / "x")
    assert_equal(gpucnn.load(tmp_path / "x")["x"], array, dtype=dtype)


def test_bfloat16_in_safetensors_is_widened(tmp_path: Path) -> None:
    header = b'{"x":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    content = np.array([1.0, -2.5, 3.25], np.float32).view(np.uint32) >> 16
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + content.astype("<u2").tobytes())
    assert_equal(gpucnn.load(tmp_path / "x")["x"], np.array([1.0, -2.5, 3.25], np.float32))


def test_what_has_no_arrays_is_refused_by_name(tmp_path: Path) -> None:
    header = b'{"head.x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(WeightFileError, match=r"head\.x has dtype F8_E4M3"):
        gpucnn.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("state", "message"),
    [([1], "mapping of names to tensors, got list"), ({1: np.ones(2)}, "names are strings, got 1")],
)
def test_save_takes_names_and_arrays(state: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        gpucnn.save(state, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- files that are refused


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


FOUR = tensor(b"K\0K\x04\x85K\x01\x85")


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
        (bytearray(b"x"), None),
    ],
    ids=["exec", "eval", "loads", "set", "numpy", "complex", "bytearray"],
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
        (archive(tensor(b"K\0K\x05\x85K\x00\x85"), **{"data/0": b"\0" * 16}), "does not fit its 4 numbers"),
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


def test_a_pickle_that_explodes_when_it_is_hashed_or_printed_does_not(tmp_path: Path) -> None:
    nested = b")" + b"2\x86".replace(b"2", b"q\x00h\x00") * 60  # a pair of itself, sixty times over
    for rest in (b"}" + nested + b"Ns.", nested + b"Q.", nested + b"]b."):
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


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: there is no such file"):
        gpucnn.load(tmp_path / "nowhere.pth")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "x.safetensors"
    gpucnn.save({"x": np.ones(3)}, place)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        gpucnn.save({"x": np.zeros(3)}, place)
    monkeypatch.undo()
    assert_equal(gpucnn.load(place)["x"], np.ones(3))
