"""What the tests of the ops share: every kernel of a table against the truth, layouts, no copies, bits that stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import backend, extension
from gpucnn.ops.registry import KernelSpec, KernelTable
from gpucnn.reference import parallel
from gpucnn.testing import assert_close, assert_equal, rotating_seed, tolerance

SEED = rotating_seed()
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def draw(kind: str, shape: tuple[int, ...], stream: int = 0) -> np.ndarray:
    """float64 numbers that every floating dtype holds: small 'integers', of which sums are exact, or 'normal'."""
    rng = np.random.default_rng([SEED, stream, *shape])
    if kind == "integers":
        return rng.integers(-4, 5, shape).astype(np.float64)
    short = rng.standard_normal(shape).astype(np.float16).astype(np.float32)
    return (short.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)  # as bfloat16 has them


def nhwc(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Logical N,C,H,W as the read-only C-contiguous N,H,W,C that kernels take."""
    return frozen(np.ascontiguousarray(array.transpose(NHWC)), dtype)


def frozen(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """A read-only copy: a kernel that writes into what it was given fails."""
    copy = np.array(array, dtype=dtype, order="K")
    copy.flags.writeable = False
    return copy


def compare(actual: Any, truth: np.ndarray, terms: int, name: str = "", exact: bool = False) -> None:
    """`actual` against float64 sums of `terms` products: equal, or within what its dtype's rounding explains."""
    __tracebackhide__ = True
    if exact:
        assert_equal(actual, truth, signed_zeros=False, name=name)
    else:
        allowed = tolerance(actual.dtype, max(1, terms))
        size = float(np.sqrt(np.mean(truth**2))) if truth.size else 0.0
        assert_close(actual, truth, rtol=allowed, atol=allowed * size, name=name)


def each_kernel(table: KernelTable, problem: Any, *arrays: Any) -> Iterator[tuple[str, Any]]:
    """(name, result) of every kernel that supports `problem`, each forced by its name: of the reference and, where
    they are built, of those for the GPU, run on the CPU."""
    for name in ("reference", "simt"):
        if backend.unavailable(name):
            continue
        for spec in table.specs(name):
            if spec.why_not(problem, arrays[0]) is None:
                given = [_fresh(array) for array in arrays]
                with backend.use_backend(name, strict=True):
                    result = table.pick(problem, arrays[0], kernel=spec.name).run(problem, *given)
                if name == "simt":
                    assert extension.compiled(name).reports() == [], f"{table} {spec.name}"
                yield f"{table} {spec.name}", result


def _fresh(array: Any) -> Any:
    """A copy of what a kernel may write to: the next kernel gets it as it was."""
    return array.copy() if isinstance(array, np.ndarray) and array.flags.writeable else array


def plant(monkeypatch: pytest.MonkeyPatch, table: KernelTable, run: Callable[..., Any]) -> None:
    """Makes `run` the table's only reference kernel."""
    monkeypatch.setitem(table._by_backend, "reference", [KernelSpec("planted", "reference", run)])


def check_no_copies(run: Callable[[gpucnn.Tensor], Any], shape: tuple[int, ...]) -> None:
    """A channels-last image and gradient stay channels-last through `run` and back, and nothing is laid out anew."""
    x = gpucnn.tensor(np.zeros(shape, np.float32), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = run(x)
    dy = gpucnn.tensor(np.zeros(y.shape, np.float32))
    with backend.count_layout_copies() as copies_back:
        y.backward(dy)
    assert (copies.value, copies_back.value) == (0, 0)
    assert y.data.transpose(NHWC).flags.c_contiguous
    assert x.grad is not None
    assert x.grad.data.transpose(NHWC).flags.c_contiguous


def check_threads(run: Callable[[], Sequence[Any]]) -> None:
    """`run` gives the same bits on one thread and on three; `many_blocks` lets it share out what is small."""
    before = parallel.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            parallel.set_num_threads(count)
            results.append([np.array(array) for array in run()])
    finally:
        parallel.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        assert_equal(three, one)


def named(value: Any) -> str:
    """For a test's id, which has to be the same in every process: its repr without the address in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def names(table: KernelTable) -> list[str]:
    return [spec.name for spec in table.specs("reference")]


def _strided(array: np.ndarray) -> np.ndarray:
    wide = np.full([2 * size + 1 for size in array.shape], np.nan if array.dtype.kind in "fV" else 99, array.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nhwc": lambda a: np.ascontiguousarray(a.transpose(NHWC)).transpose(NCHW) if a.ndim == 4 else a.copy(),
    "nchw": lambda a: np.ascontiguousarray(a),
    "fortran": lambda a: np.asfortranarray(a),
    "strided": _strided,
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}
"""Ways in which an array of one logical content may lie in memory; the first is the engine's own."""
