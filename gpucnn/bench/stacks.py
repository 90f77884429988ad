"""The stack of layers above a kernel, gpucnn's and PyTorch's, each of which can be called by itself.

Both have the same layers: a table of kernels or `torch.ops.aten`, the function, the same with what autograd records,
the module, and the way back. What is called is in stack_calls.py.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

import gpucnn
from gpucnn import backend as backends
from gpucnn import extension
from gpucnn.bench.stack_calls import Calls, Run, calls, numbers
from gpucnn.ops.compiled import Kernel
from gpucnn.ops.registry import KernelSpec, KernelTable, kernels_replaced, observe_calls

BINDING, TABLE, FUNCTION, RECORDED, MODULE, BACKWARD, STEP = (
    *("binding", "table", "function", "recorded", "module", "backward", "training step"),
)
LAYERS = (BINDING, TABLE, FUNCTION, RECORDED, MODULE, BACKWARD, STEP)
"""From the lowest up; each calls the one before it, but STEP, which is a whole network's."""

KERNELS = ("own", "none", "bindings")
"""What runs in the place of gpucnn's kernels: they themselves; nothing, what they returned being at hand; or, of the
compiled ones, all but their bindings."""

Around = Callable[[], AbstractContextManager[Any]]
"""What is in force while something is timed."""


class Stack:
    """Layers that can be timed one by one: what gpucnn's and PyTorch's share."""

    def __init__(self, library: Any, F: Any, device: str) -> None:
        self._library, self._F, self._device = library, F, device
        self._prepared: dict[tuple[str, str], tuple[Run, Around]] = {}

    def layers(self, op: str) -> tuple[str, ...]:
        """Those that `op` has here."""
        with self._in_force():
            made = self._calls(op)
        if made.step:
            return (STEP,)
        return (*self._below(op), FUNCTION, RECORDED, *([MODULE] if made.module else []), BACKWARD)

    def result(self, op: str) -> list[np.ndarray[Any, Any]]:
        """What `op` returns at its highest layer, and the gradients that it leaves, as numpy arrays."""
        with self._in_force():
            made = self._calls(op)
            y = self._run(op, made, STEP if made.step else BACKWARD, reset=False)()
        return [np.asarray(each.detach().cpu().numpy()) for each in (y, *[leaf.grad for leaf in made.leaves])]

    def seconds(self, op: str, layer: str, at_least: float) -> tuple[float, float]:
        """A call's: until the next can be made, and until it is done; on a CPU these are one. Medians of samples that
        take `at_least` seconds together."""
        most = None if self._device == "cpu" else 5 if layer == STEP else 100  # calls that a GPU's queue has room for
        with self._in_force():
            run, around = self._ready(op, layer)
            with around():
                return timed(run, self._wait, at_least, most)

    def _ready(self, op: str, layer: str) -> tuple[Run, Around]:
        key = op, layer
        if key not in self._prepared:
            run = self._run(op, self._calls(op), layer)
            around: Around = self._nothing_recorded if layer == FUNCTION else ExitStack
            with around():
                for _ in range(3):  # what is made once, such as an optimiser's state, is there then
                    run()
                self._prepared[key] = self._without_kernels(run, around)
        return self._prepared[key]

    def _calls(self, op: str) -> Calls:
        return calls(op, self._library, self._F, self._device)

    def _run(self, op: str, made: Calls, layer: str, reset: bool = True) -> Run:
        if made.step is not None:
            return made.step
        if layer in (BINDING, TABLE):
            return self._lowest(op, layer)
        function: Any = made.function if layer in (FUNCTION, RECORDED) or made.module is None else made.module
        if layer != BACKWARD:
            return function  # type: ignore[no-any-return]
        first = function()
        gradient = self._library.ones_like(first.detach()) if first.ndim else None

        def both_ways() -> Any:
            y = function()
            y.backward(gradient)
            if reset:
                for leaf in made.leaves:
                    leaf.grad = None
            return y

        return both_ways

    def _in_force(self) -> AbstractContextManager[Any]:
        """What this stack needs to be in force, here alone."""
        return ExitStack()

    def _without_kernels(self, run: Run, around: Around) -> tuple[Run, Around]:
        """The same without kernels, where it is to be timed so."""
        return run, around

    def _below(self, op: str) -> tuple[str, ...]:
        """The layers below the function that can be called."""
        raise NotImplementedError

    def _lowest(self, op: str, layer: str) -> Run:
        """What calls one of them."""
        raise NotImplementedError

    def _nothing_recorded(self) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def _wait(self) -> None:
        """Until the device is done; nothing on a CPU."""
        raise NotImplementedError


def timed(run: Run, wait: Callable[[], None], at_least: float, most: int | None) -> tuple[float, float]:
    """The median seconds of a call, until it returns and until its work is done; calls are timed many at a time, at
    most `most`. Garbage is collected as ever."""
    begin = time.perf_counter()
    run()
    wait()
    number = max(1, int(at_least / 10 / (time.perf_counter() - begin)))
    number = number if most is None else min(number, most)
    returned: list[float] = []
    done: list[float] = []
    gc.collect()
    begin = time.perf_counter()
    while not done or time.perf_counter() - begin < at_least:
        calls = itertools.repeat(None, number)
        before = time.perf_counter()
        for _ in calls:
            run()
        after = time.perf_counter()
        wait()
        returned.append((after - before) / number)
        done.append((time.perf_counter() - before) / number)
    return median(returned), median(done)


class Gpucnn(Stack):
    """gpucnn's layers.

    Args:
        name: the contestant's.
        kernels: one of KERNELS.
        backend: that they are called on.
        device: where tensors lie.
    """

    def __init__(self, name: str, kernels: str, backend: str, device: str) -> None:
        super().__init__(gpucnn, gpucnn.functional, device)
        self._kernels, self._backend = kernels, backend

    def _in_force(self) -> AbstractContextManager[Any]:
        return backends.use_backend(self._backend)

    def _below(self, op: str) -> tuple[str, ...]:
        compiled = self._backend != "reference"
        return (BINDING, TABLE) if compiled and (self._device != "cpu" or op in _LAUNCHES_NOTHING) else (TABLE,)

    def _lowest(self, op: str, layer: str) -> Run:
        on_empty = layer == BINDING and self._device == "cpu"
        table, problem, arrays, kernel, like = _first_call(calls(op, gpucnn, self._F, self._device, int(not on_empty)))
        if layer == TABLE:
            return lambda: table(problem, *arrays, kernel=kernel, like=like)
        found: Any = table.pick(problem, like, kernel).run
        bindings = _Kept(extension.compiled(self._backend))
        found.on(bindings, problem, *arrays)
        return bindings.made[-1]  # those before it only ask how much memory is needed

    def _without_kernels(self, run: Run, around: Around) -> tuple[Run, Around]:
        if self._kernels == "own":
            return run, around
        stand_in: Callable[[KernelTable, KernelSpec], Callable[..., Any]]
        if self._kernels == "none":
            answers: list[Any] = []
            with kernels_replaced(lambda table, spec: partial(_kept, answers, spec.run)):
                run()
            following = itertools.cycle(answers).__next__

            def answer(problem: Any, *arrays: Any) -> Any:
                return following()

            def stand_in(table: KernelTable, spec: KernelSpec) -> Callable[..., Any]:
                return answer

        else:
            bindings = _Kept(extension.compiled(self._backend))
            with kernels_replaced(partial(_on, bindings)):
                run()
            stand_in = partial(_on, bindings.at_hand())

        def also_replaced() -> ExitStack:
            stack = ExitStack()
            stack.enter_context(around())
            stack.enter_context(kernels_replaced(stand_in))
            return stack

        return run, also_replaced

    def _nothing_recorded(self) -> AbstractContextManager[Any]:
        return gpucnn.no_grad()

    def _wait(self) -> None:
        if self._device != "cpu":
            backends.cupy().cuda.get_current_stream().synchronize()


_LAUNCHES_NOTHING = ("relu", "add", "conv2d", "linear")
"""Ops whose bindings, given arrays without elements, check these and do nothing else: on a CPU, where the kernel itself
would be run thread by thread, it is what can be seen of a binding."""


def _first_call(made: Calls) -> tuple[KernelTable, Any, tuple[Any, ...], str | None, Any]:
    """What the function asks its table of kernels for."""
    asked: list[Any] = []

    def observer(table: KernelTable, problem: Any, arrays: tuple[Any, ...], kernel: str | None, like: Any) -> Any:
        asked.append((table, problem, arrays, kernel, like))
        return table.pick(problem, like, kernel).run(problem, *arrays)

    assert made.function is not None
    with observe_calls(observer):
        made.function()
    return asked[0]  # type: ignore[no-any-return]


def _kept(answers: list[Any], run: Callable[..., Any], problem: Any, *arrays: Any) -> Any:
    answers.append(run(problem, *arrays))
    return answers[-1]


def _on(bindings: Any, table: KernelTable, spec: KernelSpec) -> Callable[..., Any]:
    """The kernel with these bindings, if it is a compiled one."""
    return partial(spec.run.on, bindings) if isinstance(spec.run, Kernel) else spec.run


class _Kept:
    """A module that keeps what its bindings are asked and what they answer."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._answers: defaultdict[str, list[Any]] = defaultdict(list)
        self.made: list[Run] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self.made.append(partial(found, *arguments, **options))
            self._answers[name].append(answer := found(*arguments, **options))
            return answer

        return call

    def at_hand(self) -> SimpleNamespace:
        """A module that gives the same answers, one after another, and does nothing for them."""
        constants = {name: value for name, value in vars(self._module).items() if not callable(value)}

        def answering(answers: list[Any]) -> Callable[..., Any]:
            following = itertools.cycle(answers).__next__
            return lambda *arguments, **options: following()

        return SimpleNamespace(**constants, **{name: answering(each) for name, each in self._answers.items()})


class Torch(Stack):
    """PyTorch's layers, eager.

    Raises ImportError where it is not installed.
    """

    def __init__(self, name: str, device: str) -> None:
        import torch

        super().__init__(torch, torch.nn.functional, device)
        self._torch: Any = torch

    def _in_force(self) -> AbstractContextManager[Any]:
        # float32 on a GPU as exact as gpucnn's, of which the results are compared
        return self._torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # type: ignore[no-any-return]

    def _below(self, op: str) -> tuple[str, ...]:
        return (TABLE,)

    def _lowest(self, op: str, layer: str) -> Run:
        aten = self._torch.ops.aten
        given = {name: self._torch.tensor(array).to(self._device) for name, array in numbers(op).items()}
        x, *others = given.values()
        if op == "conv2d":
            return partial(aten.convolution.default, x, *others, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        if op == "batch_norm":
            mean, var = self._torch.zeros_like(others[0]), self._torch.ones_like(others[0])
            return partial(aten.native_batch_norm.default, x, *others, mean, var, True, 0.1, 1e-5)
        of = {
            "relu": aten.relu.default,
            "add": aten.add.Tensor,
            "linear": aten.linear.default,
            "cross_entropy": aten.cross_entropy_loss.default,
        }
        return partial(of[op], x, *others)

    def _nothing_recorded(self) -> AbstractContextManager[Any]:
        return self._torch.no_grad()  # type: ignore[no-any-return]

    def _wait(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.synchronize(self._device)
