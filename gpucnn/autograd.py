"""Differentiable functions over arrays, and the switch that turns recording off.

A `Function` computes on arrays; it never sees a Tensor. Whoever wraps arrays (gpucnn.tensor.Tensor) announces itself by
a class attribute `__record__`, a callable that runs a Function and notes it in the graph.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from gpucnn.backend import Array

F = TypeVar("F", bound=Callable[..., Any])


class Context:
    """What a Function's forward leaves for its backward.

    Arrays go through `save_for_backward`, so that the graph can drop them once used; anything small (shapes, problem
    descriptions) may be set as an attribute.
    """

    needs_input_grad: tuple[bool, ...]
    """For each positional input: will its gradient be asked for?"""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved: tuple[Array | None, ...] = ()

    def save_for_backward(self, *arrays: Array | None) -> None:
        self.saved = arrays

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"backward reads ctx.{name}, which forward did not set")


class Function:
    """A differentiable operation: two static methods over arrays.

    `forward(ctx, *arrays, **parameters)` returns an array or a tuple of arrays. `backward(ctx, *gradients)`, given one
    gradient for each output (zeros for an output that nothing used, None for one of integers), returns one gradient
    for each positional input of forward: an array of that input's shape, or None where the input is no array or
    `ctx.needs_input_grad` says that none is needed. Neither may change an array that it was given.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any, **parameters: Any) -> Any:
        raise NotImplementedError("a Function defines the static method forward(ctx, *arrays, **parameters)")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("a Function that takes part in backward() defines backward(ctx, *gradients)")

    @classmethod
    def apply(cls, *inputs: Any, **parameters: Any) -> Any:
        """Runs the function on Tensors, recording it where a gradient will be needed.

        Args:
            inputs: forward gets the arrays of those that are Tensors, and the others as they are.
            parameters: forward's keyword arguments; no Tensors, for gradients go to positional inputs only.

        Raises:
            TypeError: no input is a Tensor, or a parameter is one.
        """
        for name, value in parameters.items():
            if hasattr(type(value), "__record__"):
                raise TypeError(f"{cls.__name__}.apply takes Tensors by position only, got {name}=...")
        for value in inputs:
            record: Callable[..., Any] | None = getattr(type(value), "__record__", None)
            if record is not None:
                return record(cls, inputs, parameters)
        raise TypeError(f"{cls.__name__}.apply needs at least one Tensor, got {[type(v).__name__ for v in inputs]}")


class Observer(Protocol):
    """Is told of each op and each module that a thread runs while `observed_by` is in force."""

    def function(
        self,
        function: type[Function],
        inputs: tuple[Any, ...],
        parameters: Mapping[str, Any],
        ctx: Context,
        outputs: Any,
    ) -> None:
        """`function` has run on `inputs` and left `ctx`; `outputs` is the list of its output Tensors."""

    def module(self, module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """`module` has been called; returns what its forward, which is the observer's to call, returns."""


observers: dict[int, Observer] = {}
"""By the id of the thread. Empty unless somebody observes, and then all that it costs is to see that."""


@contextlib.contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Tells `observer` of what this thread runs inside; it takes the place of another that is in force."""
    thread = threading.get_ident()
    outside = observers.get(thread)
    observers[thread] = observer
    try:
        yield
    finally:
        if outside is None:
            del observers[thread]
        else:
            observers[thread] = outside


class _GradMode(threading.local):
    def __init__(self) -> None:
        self.enabled = True
        self.outside: list[bool] = []
        """What was set outside the blocks that this thread is in."""


grad_mode = _GradMode()


def is_grad_enabled() -> bool:
    """Whether this thread records operations for backward."""
    return grad_mode.enabled


class _Switch:
    _to: bool

    def __enter__(self) -> None:
        grad_mode.outside.append(grad_mode.enabled)
        grad_mode.enabled = self._to

    def __exit__(self, *_: object) -> None:
        grad_mode.enabled = grad_mode.outside.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def switched(*inputs: Any, **options: Any) -> Any:
            with self:
                return function(*inputs, **options)

        return switched  # type: ignore[return-value]


class no_grad(_Switch):
    """Records nothing inside: `with no_grad(): ...`, or as a decorator `@no_grad()`. Per thread; may be nested."""

    _to = False


class enable_grad(_Switch):
    """Records inside a `no_grad` block; used in the same ways."""

    _to = True
