"""gpucnn.load and gpucnn.save: PyTorch's files in both formats and safetensors, and what networks take of them."""

from __future__ import annotations

import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_checks import SEED

import gpucnn
from gpucnn import nn
from gpucnn.serialization import WeightFileError
from gpucnn.testing import assert_close, assert_equal

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
    assert list(found) == ["state_dict", "epoch", "plain", "schedule"]
    assert found["schedule"] == {"milestones": {30: 1, 60: 1}}
    assert type(found["schedule"]["milestones"]) is dict
    assert (found["epoch"], found["plain"]) == (3, [1, (2.5, "x", None, True, b"ab"), {"nested": -(10**30)}])
    state = found["state_dict"]
    for name, dtype in DTYPES.items():
        expected = NUMBERS if "float" in name else [0, 1, 1] if name in ("int8", "uint8", "bool") else [0, 1, 2]
        assert_equal(state[name], np.array(expected, dtype), dtype=dtype, name=name)
    assert_equal(state["weight"], np.arange(12, dtype=np.float32))
    assert_equal(state["transposed"], np.array([[2, 5], [3, 6], [4, 7]], np.float32))
    assert np.shares_memory(state["transposed"], state["weight"])
    assert_equal(state["parameter"], np.ones((2, 1, 1, 1), np.float32))
    assert_equal(state["marked"], np.ones(2, np.float32))
    np.testing.assert_array_equal(state["complex"], np.array([1 + 2j, -3j], np.complex64), strict=True)
    assert_equal(state["unsigned"], np.array([0, 1, 65535], np.uint16))
    assert_equal(state["expanded"], np.array([[0, 1]] * 3, np.float32))
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
@pytest.mark.parametrize("legacy", [False, True])
def test_every_tensor_of_torchs_is_read_or_refused_by_name(legacy: bool, torch: Any, tmp_path: Path) -> None:
    parts = torch.randn(4, dtype=torch.complex64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse and quantized tensors are said to be in beta, or deprecated
        refused = {
            "_rebuild_sparse_tensor": [torch.eye(2).to_sparse(), torch.eye(2).to_sparse_csr()],
            "_rebuild_qtensor": [torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)],
            "_rebuild_meta_tensor_no_storage": [torch.empty(3, device="meta")],
            "torch.float8_e4m3fn": [torch.ones(2).to(torch.float8_e4m3fn)],
            "a Storage by itself": [torch.ones(3).storage(), torch.ones(3).untyped_storage()],
            "still to be negated or conjugated": [parts.conj(), parts.conj().imag],
        }
    read = [parts, parts.imag, parts.to(torch.complex128), torch.ones(3, requires_grad=True), torch.tensor(2.0)]
    read += [torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2)[:, ::2], torch.ones(1).expand(2, 50)]
    read += [torch.arange(5).to(getattr(torch, name)) for name in ("uint16", "uint32", "uint64")]
    for tensor in read:
        torch.save([tensor, tensor], tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
        for found in gpucnn.load(tmp_path / "x.pt"):
            assert found.dtype == str(tensor.dtype)[6:]
            np.testing.assert_array_equal(found, tensor.detach().numpy(), strict=True)
    for name, tensors in refused.items():
        for tensor in tensors:
            torch.save(tensor, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
            with pytest.raises(WeightFileError, match=name):
                gpucnn.load(tmp_path / "x.pt")


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["SGD", "Adam", "RMSprop"])
def test_whole_checkpoints_are_read(kind: str, torch: Any, tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = getattr(torch.optim, kind)(model.parameters(), 0.1, **({"momentum": 0.9} if kind == "SGD" else {}))
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    torch.save({**whole, "epoch": 3, "best": 0.25}, tmp_path / "x.pt")
    found = gpucnn.load(tmp_path / "x.pt")
    assert (found["epoch"], found["best"], found["schedule"]["milestones"]) == (3, 0.25, {1: 1, 2: 1})
    assert found["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    for number, entries in optimizer.state_dict()["state"].items():
        for name, tensor in entries.items():
            assert_equal(found["optimizer"]["state"][number][name], np.asarray(tensor), name=f"{number} {name}")
    assert nn.Linear(3, 2).load_state_dict(found["model"]) == ([], [])


@pytest.mark.peers
@pytest.mark.slow
def test_a_published_resnet50_makes_the_way_through_files(torch: Any, torchvision: Any, tmp_path: Path) -> None:
    torch.manual_seed(SEED)
    theirs = torchvision.models.resnet50().eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x).numpy()
    with nn.init.skip_init():
        ours = gpucnn.models.resnet50().eval()
    for legacy in (False, True):
        torch.save(theirs.state_dict(), tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
        assert ours.load_state_dict(gpucnn.load(tmp_path / "x.pth")) == ([], [])
        with gpucnn.no_grad():
            assert_close(ours(gpucnn.tensor(x.numpy())), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    torch.save(torch.nn.DataParallel(theirs).state_dict(), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"remove 'module\.' from the front of the names"):
        ours.load_state_dict(gpucnn.load(tmp_path / "x.pth"))


@pytest.mark.peers
def test_big_endian_files_are_read(torch: Any, tmp_path: Path) -> None:
    values = torch.tensor([1.0, -2.5, 3.25])
    unsigned = torch.arange(6).to(torch.uint32)
    torch.save({"x": values, "h": values.bfloat16(), "u": unsigned}, tmp_path / "little.pt")
    with zipfile.ZipFile(tmp_path / "little.pt") as little, zipfile.ZipFile(tmp_path / "big.pt", "w") as big:
        for name in little.namelist():
            content = little.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            elif "/data/" in name:
                content = np.frombuffer(content, "<u2" if len(content) == 6 else "<u4").byteswap().tobytes()
            big.writestr(name, content)
    found = gpucnn.load(tmp_path / "big.pt")
    assert_equal(found["x"], values.numpy())
    assert_equal(found["h"], values.numpy())
    assert_equal(found["u"], unsigned.numpy())


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


@pytest.mark.parametrize(
    ("state", "message"),
    [([1], "mapping of names to tensors, got list"), ({1: np.ones(2)}, "names are strings, got 1")],
)
def test_save_takes_names_and_arrays(state: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        gpucnn.save(state, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


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


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: there is no such file"):
        gpucnn.load(tmp_path / "nowhere.pth")


# ------------------------------------------------------------------------------------------- into a network's state


def network_and_state() -> tuple[nn.Sequential, dict[str, Any]]:
    """A network, and a state that fits it, of other numbers than its own."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    return model, {name: tensor.numpy() + 1 for name, tensor in model.state_dict().items()}


class Fails:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("an array that can't be had")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (1j, ValueError, r"1\.num_batches_tracked: a tensor holds floats .* not complex128"),
        (None, ValueError, r"1\.num_batches_tracked: .* not object"),
        ("7", ValueError, r"1\.num_batches_tracked: .* not <U1"),
        ([[1], [2, 3]], ValueError, r"1\.num_batches_tracked: .*inhomogeneous"),
        ([7], ValueError, r"1\.num_batches_tracked: shape \(1,\), this module has \(\)"),
        (Fails(), RuntimeError, "can't be had"),
    ],
)
def test_one_array_that_does_not_fit_keeps_all_out(wrong: Any, error: type[Exception], message: str) -> None:
    model, state = network_and_state()
    before = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    state["1.num_batches_tracked"] = wrong  # the last of all
    with pytest.raises(error, match=message):
        model.load_state_dict(state)
    assert {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()} == before


def test_all_that_does_not_fit_is_said_at_once() -> None:
    model, state = network_and_state()
    del state["0.bias"]
    with pytest.raises(ValueError, match="does not fit") as caught:
        model.load_state_dict({**state, "0.weight": np.ones((2, 1, 3, 3)), "1.bias": 1j, "head": np.ones(1)})
    lines = str(caught.value).split("\n  ")[1:]
    assert [line.partition(":")[0] for line in lines] == ["0.weight", "1.bias", "0.bias", "head"]
    assert [line.rpartition(": ")[2] for line in lines[2:]] == ["missing", "unexpected"]


def test_numbers_that_the_dtype_can_not_hold_stop_nothing_half_way() -> None:
    model, state = network_and_state()
    state |= {"1.running_var": np.array([1e300, 1]), "1.num_batches_tracked": np.array(2.0)}
    assert model.load_state_dict(state) == ([], [])
    assert_equal(model[1].running_var, np.array([np.inf, 1], np.float32))
    assert int(model[1].num_batches_tracked) == 2
