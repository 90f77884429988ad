"""gpucnn.tune: what it measures, what it keeps, and that what is kept runs, with the same results."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from binding_checks import loaded
from click.testing import CliRunner
from fake_cupy import FakeArray, fake_cupy

import gpucnn
from gpucnn import backend, nn, tuned, tuning
from gpucnn import functional as F
from gpucnn.cli import main
from gpucnn.ops.registry import KernelTable, observe_calls

CONV: tuple[Any, ...] = ("conv2d", (2, 16, 6, 6), (24, 16, 3, 3))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own, in use."""
    monkeypatch.setenv(tuned.FOLDER, str(tmp_path))
    tuned.forget()
    tuned.set_tuning(True)
    yield tmp_path / "tuning"
    tuned.set_tuning(False)
    tuned.forget()


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module = loaded("_simt_plain")
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "plain")
    with backend.use_backend("simt", strict=True):
        yield module


def scripted(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[str], float]) -> list[str]:
    """Measuring takes what `seconds` says of a kernel's name; returns the names, as they are run."""
    ran: list[str] = []
    calling = tuning._calling

    def noted(spec: Any, problem: Any, arrays: Any) -> Any:
        def run() -> str:
            calling(spec, problem, arrays)()
            ran.append(spec.name)
            return str(spec.name)

        return run

    monkeypatch.setattr(tuning, "_calling", noted)
    monkeypatch.setattr(tuning, "clock_for", lambda like: lambda run: seconds(run()))
    return ran


def kernels_of(call: Callable[[], Any]) -> list[str]:
    """What runs, in order."""
    found: list[str] = []

    def note(table: KernelTable, problem: Any, arrays: Any, kernel: str | None, like: Any) -> Any:
        spec = table.pick(problem, like, kernel)
        found.append(f"{table}: {spec.name}")
        return spec.run(problem, *arrays)

    with observe_calls(note):
        call()
    return found


def drawn(*shape: int, dtype: str = "float32") -> gpucnn.Tensor:
    values = np.random.default_rng([*shape]).standard_normal(shape)
    return gpucnn.tensor(values, dtype).requires_grad_()


# ------------------------------------------------------------------------------------------------ what is measured


def test_each_kernel_and_configuration_that_can_is_measured(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, lambda name: 1.0)
    found = gpucnn.tune(*CONV, dtype="float16", rounds=3)
    assert [(each.op, each.direction) for each in found.passes] == [
        ("conv2d", "fprop"),
        ("conv2d", "dgrad"),
        ("conv2d", "wgrad"),
    ]
    for each in found.passes:
        assert each.default.kernel == "tensor_core"
        assert {timing.kernel for timing in each.others} == {
            "tensor_core",
            *(f"tensor_core:{name}" for name in ("256x64", "128x128", "128x64", "64x64")),
            "direct",
        }
        assert all(timing.samples == 3 for timing in each.others)


def test_inference_has_no_gradients_and_every_precision_its_kernels(plain: Any) -> None:
    (one,) = gpucnn.tune(*CONV, precision="high", training=False, rounds=3).passes
    assert one.default.kernel == "tf32"
    assert {"tf32:64x64", "split_bf16:64x64", "split_bf16:128x64"} <= {timing.kernel for timing in one.others}


def test_each_layer_is_measured_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = scripted(monkeypatch, lambda name: 1.0)
    layer = nn.Conv2d(6, 6, 1)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.BatchNorm2d(6), nn.Flatten())
    with backend.use_backend("reference"):
        found = gpucnn.tune(model, (2, 6, 5, 5), rounds=3, keep=False)
    assert {(each.direction, each.times) for each in found.passes} == {("fprop", 2), ("dgrad", 2), ("wgrad", 2)}
    for each in found.passes:  # once to warm up, and three times
        for timing in each.others:
            assert ran.count(timing.kernel) == 4 * sum(
                timing.kernel in {one.kernel for one in other.others} for other in found.passes
            )
    assert model[4].running_mean.numpy().tolist() == [0] * 6
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert found.file is None


def test_a_kernel_that_is_asked_for_is_left_alone() -> None:
    with backend.use_backend("reference"):
        found = gpucnn.tune(*CONV, kernel="im2col", training=False)
        assert found.passes == ()
        assert "nothing to choose" in str(found)
        assert gpucnn.tune("relu", (2, 3)).passes == ()


def test_those_far_behind_are_tried_once(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = scripted(monkeypatch, lambda name: 10.0 if name == "direct" else 1.0)
    found = gpucnn.tune(*CONV, dtype="float16", training=False, rounds=5)
    (one,) = found.passes
    assert ran.count("direct") == 2
    assert {timing.kernel: timing.samples for timing in one.others}["direct"] == 1
    assert one.others[-1].kernel == "direct"


def test_samples_are_taken_in_turn(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what slows the machine for a while slows all."""
    ran = scripted(monkeypatch, lambda name: 1.0)
    (one,) = gpucnn.tune(*CONV, dtype="float16", training=False, rounds=4).passes
    count = len(one.others)
    assert len(set(ran[-count:])) == len(set(ran[-2 * count : -count])) == count


def test_a_kernel_without_memory_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large() -> None:
        raise MemoryError("no room for 3 bytes")

    timed, failed = tuning.measure({"one": lambda: None, "two": too_large}, np.zeros(1), 3, "one")
    assert [timing.kernel for timing in timed] == ["one"]
    assert failed == {"two": "no room for 3 bytes"}
    with pytest.raises(MemoryError):
        tuning.measure({"one": lambda: None, "two": too_large}, np.zeros(1), 3, "two")


# ---------------------------------------------------------------------------------------------------- what is kept


def test_the_fastest_runs_afterwards_and_explain_says_so(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, lambda name: 1.0 if name == "implicit_gemm:64x64" else 2.0)
    found = gpucnn.tune(*CONV, dtype="float32", rounds=3)
    assert {each.chosen.kernel for each in found.passes} == {"implicit_gemm:64x64"}
    assert found.gain == 2
    x, w = drawn(2, 16, 6, 6, dtype="float32"), drawn(24, 16, 3, 3, dtype="float32")
    expected = [f"conv2d {name}: implicit_gemm:64x64" for name in ("fprop", "dgrad", "wgrad")]
    for again in range(2):
        seen = kernels_of(lambda: F.conv2d(x, w).sum().backward())
        assert [name for name in seen if name.startswith("conv2d")] == expected, again
        tuned.forget()  # as another process would
    said = str(gpucnn.explain(*CONV, dtype="float32", backend="simt"))
    assert re.search(r"> implicit_gemm:64x64 +runs: measured to be the fastest; tile 64x64\n", said)
    assert re.search(r"  direct +can, but implicit_gemm:64x64 was measured to be the fastest\n", said)
    assert "measured" not in str(gpucnn.explain(*CONV, dtype="bfloat16", backend="simt"))
    gpucnn.set_tuning(False)
    assert "measured" not in str(gpucnn.explain(*CONV, dtype="float32", backend="simt"))
    assert "conv2d fprop: implicit_gemm" in kernels_of(lambda: F.conv2d(x, w))


def test_what_gains_less_than_samples_differ_is_not_taken(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = iter(np.random.default_rng(3).uniform(0, 1, 10_000))
    scripted(monkeypatch, lambda name: (10.0 if name.startswith("tensor_core") else 10.01) + next(noise))
    found = gpucnn.tune(*CONV, dtype="float16", training=False, rounds=9)
    (one,) = found.passes
    assert one.chosen == one.default
    assert one.gain == found.gain == 1
    assert tuned.choices(("simt", -1)).by_question == {}
    assert "0 of 1 passes get another kernel" in str(found)


def test_tuning_again_takes_back_what_is_no_longer_faster(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured against the kernel that is expected to be the fastest, not against the one that was kept."""
    with monkeypatch.context() as first:
        scripted(first, lambda name: 1.0 if name == "direct" else 2.0)
        gpucnn.tune(*CONV, dtype="float16", training=False, rounds=3)
    assert [choice.kernel for choice in tuned.choices(("simt", -1)).by_question.values()] == ["direct"]
    scripted(monkeypatch, lambda name: 1.0)
    (one,) = gpucnn.tune(*CONV, dtype="float16", training=False, rounds=3).passes
    assert one.default.kernel == "tensor_core"
    assert tuned.choices(("simt", -1)).by_question == {}


def test_nothing_is_measured_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(tuned.FOLDER, str(tmp_path / "file"))
    monkeypatch.setattr(tuning, "measure", lambda *arguments: pytest.fail("measured"))
    with pytest.raises(RuntimeError, match="set GPUCNN_CACHE to a folder that can be written to"):
        gpucnn.tune(*CONV)


def test_layers_with_an_epilogue_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        tuning._layer(F.conv.conv2d_problem((32, 64, 56, 56), (128, 64, 3, 3), 2, 1, 1, 1))
        == "N32 C64 56x56 K128 3x3/2"
    )
    grouped = F.conv.conv2d_problem((1, 8, 9, 9), (8, 4, 3, 1), (2, 1), 1, 2, 2)
    assert tuning._layer(grouped) == "N1 C8 9x9 K8 3x1/2x1 dilation 2 groups 2"


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="tune: rounds must be at least 3, got 2"):
        gpucnn.tune(*CONV, rounds=2)
    with pytest.raises(ValueError, match="there is no op 'conv2'"):
        gpucnn.tune("conv2", (1, 2))
    with pytest.raises(ValueError, match="has C=5 channels, but weight"):
        gpucnn.tune("conv2d", (2, 5, 8, 8), (4, 3, 3, 3))


# --------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_configuration_gives_the_same_bits_forward_and_for_the_input(plain: Any, dtype: str) -> None:
    """Of one kernel; and what it gives for the weights is as close."""
    from gpucnn.ops import conv2d, linear
    from gpucnn.ops.linear import LinearProblem
    from gpucnn.problem import conv2d_problem

    p = conv2d_problem((3, 16, 7, 6), (24, 16, 3, 3), 1, 1, 1, 1, "high")
    rng = np.random.default_rng(5)
    kind = backend.supported_dtype(dtype)
    x, w, dy = (
        rng.standard_normal(shape).astype(np.float32).astype(kind)
        for shape in ((3, 7, 6, 16), (24, 3, 3, 16), (3, 7, 6, 24))
    )
    flat = LinearProblem(70, 64, 48, "high")
    a, b, da = (rng.standard_normal(shape).astype(np.float32).astype(kind) for shape in ((70, 64), (48, 64), (70, 48)))
    seen = 0
    for tables, problem, one, two, three in ((conv2d, p, x, w, dy), (linear, flat, a, b, da)):
        for table, arrays, exact in (
            (tables.fprop, (one, two, None), True),
            (tables.dgrad, (three, two), True),
            (tables.wgrad, (one, three), False),
        ):
            for spec in table.specs("simt"):
                if spec.why_not(problem, one) is not None or not spec.configurations():
                    continue
                own = spec.run(problem, *arrays)
                for name in spec.configurations():
                    forced = table.pick(problem, one, f"{spec.name}:{name}")
                    assert forced.name == f"{spec.name}:{name}"
                    result = forced.run(problem, *arrays)
                    seen += 1
                    if exact:
                        assert result.tobytes() == own.tobytes(), forced.name
                    else:
                        difference = np.abs(result.astype(np.float64) - own.astype(np.float64)).max()
                        assert difference <= 0.02 * np.abs(own.astype(np.float64)).max(), forced.name
    assert seen >= 30


def test_a_configuration_can_be_asked_for_by_name(plain: Any) -> None:
    x, w = drawn(2, 16, 6, 6, dtype="float16"), drawn(24, 16, 3, 3, dtype="float16")
    own, forced = (F.conv2d(x, w, kernel=name).numpy() for name in ("tensor_core", "tensor_core:128x128"))
    assert own.tobytes() == forced.tobytes()
    with pytest.raises(ValueError, match="has no configuration '1x1', there are: 256x64, 128x128, 128x64, 64x64"):
        F.conv2d(x, w, kernel="tensor_core:1x1")
    with pytest.raises(ValueError, match="kernel 'direct' has no configuration '1x1', it has none to choose from"):
        F.conv2d(x, w, kernel="direct:1x1")
    with pytest.raises(
        ValueError, match="'tensor_core:64x64' can't run this: needs groups=1 for a choice of tiles, got 2"
    ):
        F.conv2d(x, drawn(24, 8, 3, 3, dtype="float16"), groups=2, kernel="tensor_core:64x64")
    with pytest.raises(ValueError, match="can't run this: needs whole units of 16 bytes for a choice of tiles"):
        F.conv2d(drawn(1, 6, 5, 5, dtype="float16"), drawn(8, 6, 1, 1, dtype="float16"), kernel="tensor_core:64x64")
    with pytest.raises(ValueError, match="kernel 'tf32:64x64' can't run this: needs float32, got float16"):
        F.conv2d(x, w, kernel="tf32:64x64")
    with pytest.raises(ValueError, match="kernel 'tf32' can't run this: needs precision='high', got 'highest'"):
        F.conv2d(drawn(2, 16, 6, 6), drawn(24, 16, 3, 3), kernel="tf32")


# ------------------------------------------------------------------------------------------------------- the clocks


def test_on_a_gpu_events_tell_the_time_and_its_caches_are_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Event:
        def __init__(self) -> None:
            self.name = f"event {sum(name.startswith('new') for name in happened)}"
            happened.append("new")

        def record(self, stream: str) -> None:
            happened.append(f"{self.name} on {stream}")

        def synchronize(self) -> None:
            happened.append(f"{self.name} waited for")

    library = fake_cupy(devices=1)
    library.cuda.Event = Event
    library.cuda.get_current_stream = lambda: "its own"
    library.cuda.get_elapsed_time = lambda start, stop: 3.0  # milliseconds
    library.empty = lambda size, dtype: SimpleNamespace(fill=lambda value: happened.append(f"{size} bytes written"))
    monkeypatch.setitem(sys.modules, "cupy", library)
    clock = tuning.clock_for(FakeArray(np.zeros(1, np.float32), 0))
    happened.clear()
    assert clock(lambda: happened.append("run")) == 0.003
    assert happened == [
        f"{256 << 20} bytes written",
        "event 0 on its own",
        "run",
        "event 1 on its own",
        "event 1 waited for",
    ]


# --------------------------------------------------------------------------------------------------------- in words


def test_the_table_and_the_json_say_the_same(plain: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = gpucnn.tune("linear", (70, 64), (48, 64), dtype="float16", rounds=3, training=False)
    assert capsys.readouterr().out == f"{found}\n"
    text = str(found)
    assert text.startswith("linear((70, 64), (48, 64)) on the CPU as a GPU, plain\npass ")
    assert re.search(r"\nlinear fprop  M70 I64 O48      1  tensor_core +[0-9.]+  ", text)
    assert f"\nkept in {found.file}" in text
    assert json.loads(json.dumps(found.to_dict()))["passes"][0]["default"]["kernel"] == "tensor_core"


def test_on_the_command_line(cache: Path) -> None:
    words = ["tune", "resnet20", "--input", "3,8,8", "--batch", "2", "--backend", "reference", "--rounds", "3"]
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("CifarResNet((2, 3, 8, 8)) on reference on ")
    assert "conv2d wgrad" in shown.output
    (file,) = cache.glob("*.json")
    assert shown.output.rstrip().endswith(f"kept in {file}")
    found = json.loads(CliRunner().invoke(main, [*words, "--inference", "--fused", "--json"]).output)
    assert all(each["direction"] == "fprop" for each in found["passes"])
    wrong = CliRunner().invoke(main, [*words, "--fused"])
    assert wrong.exit_code == 2
    assert "--fused needs --inference" in wrong.output
    unknown = CliRunner().invoke(main, ["tune", "resnet", "--input", "3,4,4"])
    assert unknown.exit_code == 1
    assert "unknown model 'resnet'" in unknown.output
