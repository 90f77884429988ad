"""The kernels on the CPU as users meet them: F.conv2d and F.max_pool2d on backend `simt`, chosen, forced, refused, and
a network that trains on them."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from op_checks import SEED, check_no_copies, draw, names

import gpucnn
from gpucnn import functional as F
from gpucnn import models, optim
from gpucnn.backend import use_backend
from gpucnn.ops import conv2d, pool2d
from gpucnn.testing import assert_close, assert_equal

CONV = (conv2d.fprop, conv2d.dgrad, conv2d.wgrad, conv2d.bgrad)
POOL = (pool2d.max_fprop, pool2d.max_fprop_winners, pool2d.max_indices, pool2d.max_dgrad)


@pytest.mark.parametrize("backend", ["simt", "cuda"])
def test_these_are_all_kernels(backend: str) -> None:
    for table in (*CONV, *POOL):
        products = ["tensor_core", "tf32", "split_bf16"]
        others = [*products, "pointwise", "depthwise", "grouped", "stem", "implicit_gemm"]
        cut = [f"{name}_cut" for name in products]
        own = {conv2d.bgrad: ["columns"], conv2d.wgrad: others} | {table: [*cut, *others] for table in CONV[:2]}
        expected = [*own.get(table, []), "direct"]
        assert [spec.name for spec in table.specs(backend)] == expected, table
        assert "direct" not in names(table), table


def tensors(*shapes: tuple[int, ...], dtype: str = "float32") -> list[gpucnn.Tensor]:
    drawn = [draw("integers", shape, stream) for stream, shape in enumerate(shapes)]
    return [gpucnn.tensor(array.astype(dtype), requires_grad=True) for array in drawn]


def passes(run: Any, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """run's output for small integers, and the gradients of all its inputs."""
    inputs = tensors(*shapes)
    y = run(*inputs)
    y.backward(gpucnn.tensor(draw("integers", y.shape, 9).astype(np.float32)))
    return [y.numpy(), *(tensor.grad.numpy() for tensor in inputs)]


CALLS: dict[str, tuple[Any, tuple[tuple[int, ...], ...]]] = {
    "conv2d": (lambda *a: F.conv2d(*a, 2, 1, 1, 2), ((2, 4, 9, 8), (16, 2, 3, 3), (16,))),
    "conv2d_relu": (lambda *a: F.conv2d_relu(*a, 2, 1, 1, 2), ((2, 4, 9, 8), (16, 2, 3, 3), (16,))),
    "conv2d_relu depthwise": (lambda *a: F.conv2d_relu(*a, 1, 1, 1, 8), ((2, 8, 9, 8), (8, 1, 3, 3), (8,))),
    "conv2d of one image": (lambda *a: F.conv2d(*a, padding="same"), ((5, 9, 8), (3, 5, 2, 4), (3,))),
    "conv1d": (lambda *a: F.conv1d(*a, 3, 2, 2), ((2, 9, 31), (10, 9, 4), (10,))),
    "conv_transpose2d with a bias": (lambda *a: F.conv_transpose2d(*a, 2, 1), ((2, 8, 4, 5), (8, 6, 4, 4), (6,))),
    "conv2d depthwise": (lambda *a: F.conv2d(*a, 2, 1, 1, 8), ((2, 8, 9, 8), (8, 1, 3, 3), (8,))),
    "conv_transpose2d": (lambda *a: F.conv_transpose2d(*a, None, 2, 1, 1), ((2, 9, 4, 5), (9, 8, 3, 3))),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1, 2, True), ((2, 5, 9, 8),)),
}


@pytest.mark.parametrize("call", CALLS)
def test_functions_and_their_gradients_are_the_references(simt: ModuleType, call: str) -> None:
    """Strict: no pass falls to the reference. Sums of small integers are exact whatever their order."""
    run, shapes = CALLS[call]
    found = passes(run, *shapes)
    with use_backend("reference"):
        expected = passes(run, *shapes)
    for ours, theirs in zip(found, expected, strict=True):
        assert_equal(ours, theirs, signed_zeros=False, name=call)


@pytest.mark.parametrize("run", [F.conv2d, F.conv2d_relu, F.conv_transpose2d])
def test_a_bias_may_lie_anyhow(simt: ModuleType, run: Any) -> None:
    x, w, b = (draw("integers", shape).astype(np.float32) for shape in ((2, 4, 5, 5), (4, 4, 3, 3), (4, 2)))
    found = run(gpucnn.tensor(x), gpucnn.tensor(w), gpucnn.Tensor(b[::-1, 1]))
    assert_equal(found, run(gpucnn.tensor(x), gpucnn.tensor(w), gpucnn.tensor(b[::-1, 1].copy())))


def test_indices_of_maxima(simt: ModuleType) -> None:
    (x,) = tensors((2, 3, 7, 6))
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    with use_backend("reference"):
        expected, places = F.max_pool2d(x, 2, return_indices=True)
    assert_equal(y, expected)
    assert_equal(indices, places)


def test_an_empty_batch_has_gradients_of_zeros(simt: ModuleType) -> None:
    y, dx, dw, db = passes(lambda x, w, b: F.max_pool2d(F.conv2d(x, w, b), 2), (0, 3, 8, 8), (9, 3, 3, 3), (9,))
    assert (y.shape, dx.shape) == ((0, 9, 3, 3), (0, 3, 8, 8))
    assert_equal(dw, np.zeros((9, 3, 3, 3), np.float32))
    assert_equal(db, np.zeros(9, np.float32))


def test_nothing_is_laid_out_anew(simt: ModuleType) -> None:
    check_no_copies(lambda x: F.max_pool2d(F.conv2d(x, gpucnn.tensor(np.ones((4, 3, 3, 3), "f4"))), 2), (2, 3, 9, 9))


def test_the_kernel_is_forced_or_refused_with_the_reason(simt: ModuleType) -> None:
    x, w = tensors((1, 3, 5, 5), (4, 3, 3, 3))
    assert_equal(F.conv2d(x, w, kernel="direct"), F.conv2d(x, w))
    with pytest.raises(ValueError, match=r"no kernel 'dirct' on backend 'simt', .* did you mean 'direct'"):
        F.conv2d(x, w, kernel="dirct")
    with use_backend("reference"), pytest.raises(ValueError, match="no kernel 'direct' on backend 'reference'"):
        F.conv2d(x, w, kernel="direct")


def test_other_dtypes_are_refused_or_fall_to_the_reference_with_a_line(
    simt: ModuleType, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = tensors((1, 3, 5, 5), (4, 3, 3, 3), dtype="float64")
    reason = "needs float32 or float16 or bfloat16, got float64"
    with pytest.raises(ValueError, match=f"kernel 'direct' can't run this: {reason}"):
        F.conv2d(x, w, kernel="direct")
    with pytest.raises(RuntimeError, match=rf"'simt' can't run .*direct: {reason}\) and strict"):
        F.conv2d(x, w)
    with pytest.raises(RuntimeError, match=r"'simt' can't run .*direct: needs float32.*, got float64\) and strict"):
        F.max_pool2d(x, 2)
    for table in CONV:
        monkeypatch.setattr(table, "_logged", set())
    with use_backend("simt"), caplog.at_level(logging.WARNING, "gpucnn"):
        y = F.conv2d(x, w)
        F.conv2d(x, w)
    reasons = "; ".join(
        f"{spec.name}: needs {' or '.join(spec.dtypes or ())}, got float64" for spec in conv2d.fprop.specs("simt")
    )
    assert [record.message for record in caplog.records] == [
        f"conv2d fprop: running on reference, backend 'simt' can't ({reasons})"
    ]
    with use_backend("reference"):
        assert_equal(y, F.conv2d(x, w))


def losses(backend: str) -> list[float]:
    """Of three steps of LeNet-5 on six images; biases and momentum take part."""
    gpucnn.manual_seed(7)
    model = models.lenet5()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rng = np.random.default_rng(SEED)
    images = gpucnn.tensor(rng.standard_normal((6, 1, 28, 28), dtype=np.float32))
    labels = gpucnn.tensor(rng.integers(0, 10, 6))
    found = []
    with use_backend(backend):
        for _ in range(3):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(float(loss.numpy()))
    return found


def test_lenet5_trains_as_on_the_reference(simt: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = losses("reference")
    for table in (*CONV, *POOL):
        monkeypatch.setitem(table._by_backend, "reference", [])  # nothing to fall to
    found = losses("simt")
    assert len(set(found)) == 3
    assert_close(np.array(found), np.array(expected), rtol=0, atol=1e-5)
