"""Update rules against the truth and PyTorch over several steps; schedules against PyTorch's, step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, SEED, names, plant

import gpucnn
from gpucnn.ops import optim as ops
from gpucnn.optim import SGD, Adam, AdamW, Optimizer, lr_scheduler
from gpucnn.reference import optim as reference
from gpucnn.testing import assert_close, assert_equal, naive

STEPS = 6
SGD_OPTIONS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    {"weight_decay": 0.05},
    {"momentum": 0.5, "dampening": 1.0, "weight_decay": 0.02},
]
ADAM_OPTIONS: list[dict[str, Any]] = [
    {},
    {"betas": (0.5, 0.75)},
    {"eps": 0.1, "weight_decay": 0.2},
    {"betas": (0.0, 0.999), "eps": 1e-3},
]


def numbers(*shape: int, stream: int = 0) -> np.ndarray:
    return np.random.default_rng([SEED, stream, *shape]).standard_normal(shape)


def leaf(array: np.ndarray) -> gpucnn.Tensor:
    return gpucnn.Tensor(array.copy(order="K"), requires_grad=True)


def run(optimizer: Optimizer, parameter: gpucnn.Tensor, steps: int = STEPS) -> None:
    for step in range(steps):
        parameter.grad = gpucnn.Tensor(numbers(*parameter.shape, stream=1 + step).astype(parameter.dtype))
        optimizer.step()


def check_sgd(options: dict[str, Any], layout: str = "nhwc", dtype: str = "float64") -> None:
    __tracebackhide__ = True
    truth, buffer = numbers(4, 3, 2, 5), None
    parameter = leaf(LAYOUTS[layout](truth.astype(dtype)))
    run(SGD([parameter], lr=0.1, **options), parameter)
    for step in range(STEPS):
        truth, buffer = naive.sgd_step(truth, numbers(4, 3, 2, 5, stream=1 + step), buffer, lr=0.1, **options)
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    assert_close(parameter, truth, rtol=tolerance, atol=tolerance, dtype=dtype, name=f"SGD {options}")


def check_adam(kind: type[Adam], options: dict[str, Any], layout: str = "nhwc", dtype: str = "float64") -> None:
    __tracebackhide__ = True
    truth = numbers(4, 3, 2, 5)
    m, v = np.zeros_like(truth), np.zeros_like(truth)
    parameter = leaf(LAYOUTS[layout](truth.astype(dtype)))
    run(kind([parameter], lr=0.01, **options), parameter)
    rule = naive.adamw_step if kind is AdamW else naive.adam_step
    for step in range(STEPS):
        truth, m, v = rule(truth, numbers(4, 3, 2, 5, stream=1 + step), m, v, step + 1, lr=0.01, **options)
    tolerance = 1e-13 if dtype == "float64" else 1e-6
    assert_close(parameter, truth, rtol=tolerance, atol=tolerance, dtype=dtype, name=f"{kind.__name__} {options}")


@pytest.mark.parametrize("options", SGD_OPTIONS, ids=str)
@pytest.mark.parametrize("layout", ["nhwc", "nchw", "strided"])
def test_sgd_is_the_truth(options: dict[str, Any], layout: str) -> None:
    check_sgd(options, layout)
    check_sgd(options, layout, "float32")


@pytest.mark.parametrize("options", ADAM_OPTIONS, ids=str)
@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("layout", ["nhwc", "strided"])
def test_adam_is_the_truth(kind: type[Adam], options: dict[str, Any], layout: str) -> None:
    check_adam(kind, options, layout)
    check_adam(kind, options, layout, "float32")


def test_these_are_all_kernels() -> None:
    assert names(ops.sgd) == names(ops.adam) == ["array"]
    assert [spec.name for table in (ops.sgd, ops.adam) for spec in table.specs("cuda")] == ["multi_tensor"] * 2


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "shared", "own"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9}, {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.3}),
        ("SGD", {"lr": 0.1, "momentum": 0.7, "nesterov": True}, {"nesterov": False, "dampening": 0.2}),
        ("Adam", {"lr": 0.02}, {"betas": (0.7, 0.8), "eps": 1e-4, "weight_decay": 0.1}),
        ("AdamW", {"lr": 0.02}, {"lr": 0.1, "weight_decay": 0.4}),
    ],
    ids=["sgd", "sgd-nesterov", "adam", "adamw"],
)
def test_parameter_groups_are_pytorchs(name: str, shared: dict[str, Any], own: dict[str, Any], torch: Any) -> None:
    """Two groups, a parameter that has no gradient at first, and options that change on the way."""
    shapes = [(3, 4), (5,), (2, 2)]
    mine = [leaf(numbers(*s)) for s in shapes]
    theirs = [torch.tensor(p.numpy().copy(), requires_grad=True) for p in mine]
    optimizers = [
        getattr(module, name)([{"params": p[:2]}, {"params": p[2:], **own}], **shared)
        for module, p in ((gpucnn.optim, mine), (torch.optim, theirs))
    ]
    for step in range(8):
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            given = not (i == 1 and step < 3)
            gradient = numbers(*a.shape, stream=100 * step + i)
            a.grad, b.grad = (gpucnn.Tensor(gradient), torch.tensor(gradient)) if given else (None, None)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] *= 0.9
            if name == "SGD" and not shared.get("nesterov"):
                optimizer.param_groups[0]["momentum"] = 0.0 if step in (3, 4) else 0.9
                optimizer.param_groups[1]["momentum"] = 0.5 if step > 2 else 0.0
            optimizer.step()
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            assert_close(a, b.detach(), rtol=1e-12, atol=1e-13, name=f"parameter {i} after step {step}")


def test_a_step_writes_in_place_and_leaves_gradients_alone() -> None:
    parameter = leaf(numbers(3))
    memory, gradient = parameter.data, numbers(3, stream=1)
    optimizer = SGD([parameter], lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=True)
    parameter.grad = gpucnn.Tensor(gradient.copy())
    optimizer.step()
    optimizer.step()
    assert parameter.data is memory
    assert_equal(parameter.grad, gradient)
    optimizer.zero_grad()
    before = memory.copy()
    optimizer.step()
    assert parameter.grad is None
    assert_equal(parameter, before)


def test_overflow_warns_of_nothing() -> None:
    for kind in (SGD, Adam, AdamW):
        parameter = leaf(np.ones(2, np.float32))
        parameter.grad = gpucnn.Tensor(np.array([3e38, math.inf], np.float32))
        kind([parameter], lr=10.0).step()
        assert not np.isfinite(parameter.numpy()[1])


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_a_restored_optimizer_goes_on_with_the_same_bits(kind: Any) -> None:
    options = {"momentum": 0.9} if kind is SGD else {}
    straight, first, second = (leaf(numbers(2, 3, 2, 2)) for _ in range(3))
    run(kind([straight], lr=0.1, **options), straight)
    optimizer = kind([first], lr=0.1, **options)
    run(optimizer, first, 3)
    second.data[...] = first.data
    restored = kind([second], lr=77.0)
    restored.load_state_dict(optimizer.state_dict())
    for step in range(3, STEPS):
        second.grad = gpucnn.Tensor(numbers(2, 3, 2, 2, stream=1 + step))
        restored.step()
    assert_equal(second, straight.numpy())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: SGD([]), ValueError, "needs parameters, got none"),
        (lambda p: SGD(p), TypeError, "takes a list of tensors, got one tensor"),
        (lambda p: SGD([p, p]), ValueError, "given twice"),
        (lambda p: SGD([{"params": [p]}, {"params": p}]), ValueError, "given twice"),
        (lambda p: SGD([p.numpy()]), TypeError, "SGD takes tensors, got ndarray"),
        (lambda p: SGD([p * 2]), ValueError, "leaves only"),
        (lambda p: SGD([p], lr=-1), ValueError, "lr must not be negative, got -1"),
        (lambda p: SGD([p], lr=math.nan), ValueError, "lr must not be negative, got nan"),
        (lambda p: SGD([p], momentum=-0.1), ValueError, "momentum must not be negative"),
        (lambda p: SGD([p], nesterov=True), ValueError, "nesterov needs a momentum and no dampening"),
        (lambda p: SGD([p], momentum=0.9, dampening=0.1, nesterov=True), ValueError, "no dampening"),
        (lambda p: SGD([{"params": [p], "betas": 1}]), ValueError, "SGD has no option betas"),
        (lambda p: SGD([{"parameters": [p]}]), ValueError, "a dict with 'params' in it"),
        (lambda p: Adam([p], betas=(0.9, 1.0)), ValueError, r"betas must be two numbers in \[0, 1\)"),
        (lambda p: Adam([p], eps=-1e-8), ValueError, "Adam: eps must not be negative"),
        (lambda p: AdamW([p], weight_decay=-1), ValueError, "AdamW: weight_decay must not be negative"),
    ],
)
def test_optimizers_refuse(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(leaf(numbers(3)))


# ------------------------------------------------------------------------------------------------------- schedules

SCHEDULES: dict[str, Any] = {
    "step": lambda s, o: s.StepLR(o, 3, 0.5),
    "multistep": lambda s, o: s.MultiStepLR(o, [2, 2, 7], 0.3),
    "lambda": lambda s, o: s.LambdaLR(o, lambda step: 1 / (1 + step)),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 8, 0.001),
    "cosine-beyond": lambda s, o: s.CosineAnnealingLR(o, 5),
    "warm-up": lambda s, o: s.LinearLR(o, 0.1, total_iters=4),
    "decay": lambda s, o: s.LinearLR(o, 1.0, 0.2, 6),
    "warm-up-cosine": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=3), s.CosineAnnealingLR(o, 9)], [3]
    ),
    "three": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.5, total_iters=2), s.StepLR(o, 2, 0.1), s.LinearLR(o, 0.25, total_iters=4)], [2, 7]
    ),
    "one-cycle": lambda s, o: s.OneCycleLR(o, 0.7, total_steps=13),
    "one-cycle-late": lambda s, o: s.OneCycleLR(
        o, 0.7, total_steps=13, pct_start=0.8, div_factor=10, final_div_factor=7
    ),
    "one-cycle-down": lambda s, o: s.OneCycleLR(
        o, 0.7, total_steps=13, pct_start=0.0, base_momentum=0.6, max_momentum=0.7
    ),
    "one-cycle-no-momentum": lambda s, o: s.OneCycleLR(o, 0.7, total_steps=13, cycle_momentum=False),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_schedules_are_pytorchs(name: str, kind: str, torch: Any) -> None:
    options = {"momentum": 0.4} if kind == "SGD" else {"betas": (0.4, 0.9)}

    def optimizer(module: Any, tensor: Any) -> Any:
        groups = [{"params": [tensor(2)]}, {"params": [tensor(3)], "lr": 0.02}]
        return getattr(module, kind)(groups, lr=0.3, **options)

    mine = optimizer(gpucnn.optim, lambda n: leaf(np.zeros(n)))
    theirs = optimizer(torch.optim, lambda n: torch.zeros(n, requires_grad=True))
    ours, expected = SCHEDULES[name](lr_scheduler, mine), SCHEDULES[name](torch.optim.lr_scheduler, theirs)
    key = "momentum" if kind == "SGD" else "betas"
    for step in range(13):
        for group, other in zip(mine.param_groups, theirs.param_groups, strict=True):
            assert_close(np.float64(group["lr"]), other["lr"], rtol=1e-12, atol=1e-15, name=f"lr at step {step}")
            assert_close(np.array(group[key]), np.array(other[key]), rtol=1e-12, atol=0, name=f"{key} at {step}")
        assert ours.get_last_lr() == [group["lr"] for group in mine.param_groups]
        if step < 12:
            ours.step()
            expected.step()


def test_one_cycle_stays_low_after_its_end_and_takes_any_length() -> None:
    for total in (1, 2, 3, 10):
        optimizer = SGD([leaf(np.zeros(2))], lr=5.0)
        schedule = lr_scheduler.OneCycleLR(optimizer, 1.0, total, pct_start=0.1)
        for _ in range(total + 2):
            assert 0 < schedule.get_last_lr()[0] <= 1.0
            schedule.step()
        assert_close(np.float64(schedule.get_last_lr()[0]), 1 / 25e4, rtol=1e-9, atol=0)


def test_schedules_in_sequence_keep_rates_of_their_own() -> None:
    """A warm-up to the group's rate and then a cycle to its own maximum, whichever was made first."""
    cycle_first, cycle_last, alone = (SGD([leaf(np.zeros(2))], lr=0.3) for _ in range(3))
    warm_up, cycle = lr_scheduler.LinearLR(cycle_last, 0.1, total_iters=3), lr_scheduler.OneCycleLR(cycle_last, 2.0, 10)
    warm_up_then_cycle = lr_scheduler.SequentialLR(cycle_last, [warm_up, cycle], [3])
    cycle = lr_scheduler.OneCycleLR(cycle_first, 2.0, 10)
    cycle_then_steps = lr_scheduler.SequentialLR(cycle_first, [cycle, lr_scheduler.StepLR(cycle_first, 1)], [10])
    expected = lr_scheduler.OneCycleLR(alone, 2.0, 10)
    rates = {schedule: [] for schedule in (warm_up_then_cycle, cycle_then_steps, expected)}
    for schedule, found in rates.items():
        for _ in range(13):
            found += schedule.get_last_lr()
            schedule.step()
    assert rates[warm_up_then_cycle][3:] == rates[cycle_then_steps][:10] == rates[expected][:10]
    assert_close(np.array(rates[warm_up_then_cycle][:3]), np.array([0.03, 0.12, 0.21]), rtol=1e-12, atol=0)
    assert_close(np.array(rates[cycle_then_steps][10:]), np.array([0.3, 0.03, 0.003]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_restored_schedule_has_the_rates_of_an_undisturbed_one(name: str) -> None:
    def make() -> Any:
        return SCHEDULES[name](lr_scheduler, SGD([{"params": [leaf(np.zeros(2))]}, {"params": [], "lr": 0.02}], lr=0.3))

    straight, first, second = make(), make(), make()
    for _ in range(5):
        straight.step()
        first.step()
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        assert second.get_last_lr() == straight.get_last_lr()
        second.step()
        straight.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: lr_scheduler.StepLR(o, 0), "step_size must be at least 1, got 0"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 0), "T_max must be at least 1"),
        (lambda o: lr_scheduler.LinearLR(o, 0.0), "0 < start_factor <= 1"),
        (lambda o: lr_scheduler.LinearLR(o, total_iters=0), "total_iters >= 1"),
        (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 0), "total_steps >= 1"),
        (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 5, pct_start=1.5), "pct_start in"),
        (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 2)], [3]), "need 0 milestones"),
        (
            lambda o: lr_scheduler.StepLR(o, 2).load_state_dict({"base_lrs": [0.1, 0.2], "last_step": 1}),
            "of other parameter groups",
        ),
    ],
)
def test_schedules_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(SGD([leaf(np.zeros(2))], lr=0.1))


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def no_momentum(p: Any, params: Any, grads: Any, guard: Any, *velocities: Any) -> None:
    reference.sgd(p, params, grads)


def first_step_dampened(p: Any, params: Any, grads: Any, guard: Any, *velocities: Any) -> None:
    reference.sgd(p, params, [(1 - p.dampening) * g if p.first else g for g in grads], *velocities)


def no_correction(p: Any, params: Any, grads: Any, guard: Any, *states: Any) -> None:
    reference.adam(p._replace(step=1000), params, grads, *states)


@pytest.mark.parametrize("wrong", [no_momentum, first_step_dampened, no_correction])
def test_a_wrong_kernel_is_caught(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ops.adam if wrong is no_correction else ops.sgd, wrong)
    with pytest.raises(AssertionError, match="elements are wrong"):
        check_adam(Adam, {}) if wrong is no_correction else check_sgd({"momentum": 0.9, "dampening": 0.3})
