"""PyTorch eager as a rival: as fast as it gets, or as it comes.

"torch" has channels_last images, cuDNN's measured choice of algorithms, and the float32 precision that gpucnn was asked
for; "torch default" has PyTorch's own layout, heuristics and precision, in which cuDNN multiplies float32 in TF32.
Convolutions' gradients are asked for one by one (aten::convolution_backward), those of other functions by
torch.autograd.grad over a graph that is kept.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from gpucnn import backend
from gpucnn.bench.cases import Case, Numbers, smooth
from gpucnn.bench.rivals import SETS, Prepared, Timed
from gpucnn.bench.turns import THREAD_COUNTS
from gpucnn.bench.updates import STEPS, UPDATES
from gpucnn.calls import Call
from gpucnn.tensor import Tensor


class Torch(Timed):
    """PyTorch, "torch" or "torch default"."""

    def __init__(self, name: str, device: str) -> None:
        super().__init__(device)
        import torch

        self._torch = torch
        self.name = name
        self._is_default = name == "torch default"
        if device == "cpu" and (count := os.environ.get(THREAD_COUNTS[0])):
            torch.set_num_threads(int(count))

    def prepare(self, case: Case, seed: int, kernel: None = None) -> Prepared:
        """The pass in PyTorch; `failed` says why where it can't compute it."""
        torch = self._torch
        torch.backends.cudnn.benchmark = not self._is_default
        torch.backends.cudnn.allow_tf32 = self._is_default or case.precision == "high"
        torch.backends.cuda.matmul.allow_tf32 = not self._is_default and case.precision == "high"
        try:
            function = None if case.op in UPDATES else self._function(case.op)
            runs = []
            for number in range(SETS):
                numbers = Numbers.of(case, seed + number, self.device)
                with backend.use_backend("reference"):
                    call = case.call(numbers)
                runs.append(self._run(case, function, call, numbers))
            outputs = [self._reachable(each).copy() for each in runs[0]()]
            self._runs[None] = runs
            return Prepared(outputs)
        except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError, MemoryError) as error:
            return Prepared(failed=str(error).strip().partition("\n")[0])

    def _function(self, op: str) -> Callable[..., Any]:
        F = self._torch.nn.functional
        composed = {
            "conv2d_relu": lambda *a, **o: F.relu(F.conv2d(*a, **o), inplace=True),
            "linear_relu": lambda *a, **o: F.relu(F.linear(*a, **o), inplace=True),
            "batch_norm_relu": functools.partial(_batch_norm_relu, F),
            "subtract": self._torch.sub,
            "normalize_images": None,
        }
        found = composed.get(op) or getattr(F, op, None) or getattr(self._torch, op, None)
        if found is None or op in ("normalize_images", "fold"):
            raise NotImplementedError(f"PyTorch has no {op}")
        return found  # type: ignore[no-any-return]

    def _run(self, case: Case, function: Callable[..., Any] | None, call: Call, numbers: Numbers) -> Callable[[], Any]:
        torch = self._torch
        arguments = [self._converted(each) for each in call.arguments]
        options = {name: self._converted(each) for name, each in call.options.items()}
        if case.op in UPDATES:
            return self._update(case.op, *arguments, **options)
        assert function is not None
        if case.direction == "fwd":

            def forward() -> Any:
                with torch.no_grad():
                    return _several(function(*arguments, **options))

            return forward
        found = [each for each in _several(function(*arguments, **options)) if each.is_floating_point()]
        given = [smooth(case, self._gradient(numbers, each), each.detach()) for each in found]
        inputs = [each for each in _flat([*arguments, *options.values()]) if self._is_differentiable(each)]
        wanted = {"dgrad": inputs[:1], "wgrad": inputs[1:], "bwd": inputs}[case.direction]
        if case.op == "conv2d" and not isinstance(case.arguments.get("padding"), str):
            return self._convolution(case, arguments, options, given[0])
        if case.op == "linear":
            x, dy = arguments[0].detach(), given[0]
            if case.direction == "dgrad":
                w = arguments[1].detach()
                return lambda: (dy.matmul(w),)
            rows = dy.flatten(0, -2), x.flatten(0, -2)
            if len(wanted) == 1:
                return lambda: (rows[0].t().matmul(rows[1]),)
            return lambda: (rows[0].t().matmul(rows[1]), rows[0].sum(0))
        return lambda: torch.autograd.grad(found, wanted, given, retain_graph=True)

    def _update(
        self, op: str, param: Any, grad: Any, lr: float | None = None, momentum: float = 0.9
    ) -> Callable[[], Any]:
        """A step; the first call makes STEPS of them, as gpucnn's."""
        kind = {"sgd": self._torch.optim.SGD, "adam": self._torch.optim.Adam}[op]
        options = {"lr": lr or (0.01 if op == "sgd" else 0.001), **({"momentum": momentum} if op == "sgd" else {})}
        param, grad = param.detach(), grad.detach()
        param.grad = grad
        optimizer = kind([param], fused=not self._is_default or None, **options)
        for _ in range(STEPS - 1):
            optimizer.step()

        def step() -> Any:
            optimizer.step()
            return (param,)

        return step

    def _convolution(self, case: Case, arguments: list[Any], options: dict[str, Any], dy: Any) -> Callable[[], Any]:
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        values: dict[str, Any] = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        values |= dict(zip(names, arguments, strict=False)) | options
        x, w, bias = (None if values[name] is None else values[name].detach() for name in names[:3])
        stride, padding, dilation = (_pair(values[name]) for name in ("stride", "padding", "dilation"))
        is_dgrad = case.direction == "dgrad"
        mask = [is_dgrad, not is_dgrad, not is_dgrad and bias is not None]
        sizes = None if bias is None else list(bias.shape)
        backward = self._torch.ops.aten.convolution_backward
        groups = values["groups"]

        def run() -> list[Any]:
            found = backward(dy, x, w, sizes, stride, padding, dilation, False, [0, 0], groups, mask)
            return [each for each, wanted in zip(found, mask, strict=True) if wanted]

        return run

    def _converted(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)) and any(isinstance(each, Tensor) for each in value):
            return [self._converted(each) for each in value]
        return self._tensor(value) if isinstance(value, Tensor) else value

    def _tensor(self, tensor: Tensor) -> Any:
        torch = self._torch
        is_float = tensor.dtype.kind in backend.FLOAT_KINDS
        name = backend.dtype_name(tensor.dtype)
        values = torch.from_dlpack(tensor.detach().to("float32") if is_float else tensor).clone()
        values = values.to(getattr(torch, name) if is_float else None).contiguous()
        if values.dim() == 4 and not self._is_default:
            values = values.to(memory_format=torch.channels_last)
        return values.requires_grad_(bool(tensor.requires_grad))

    def _gradient(self, numbers: Numbers, result: Any) -> Any:
        kind = backend.supported_dtype(str(result.dtype).removeprefix("torch."))
        return self._tensor(numbers(tuple(result.shape), kind))

    def _is_differentiable(self, value: Any) -> bool:
        return isinstance(value, self._torch.Tensor) and bool(value.requires_grad)

    def _reachable(self, tensor: Any) -> Any:
        values = tensor.detach()
        values = values if values.dtype == self._torch.float64 else values.float()
        return values.numpy() if self.device == "cpu" else backend.cupy().from_dlpack(values.contiguous())


def _batch_norm_relu(
    F: Any, *arguments: Any, residual: Any = None, max_val: float = float("inf"), **options: Any
) -> Any:
    y = F.batch_norm(*arguments, **options)
    if residual is not None:
        y = y + residual
    return F.relu(y) if max_val == float("inf") else F.hardtanh(y, 0.0, max_val)


def _several(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _flat(values: list[Any]) -> list[Any]:
    return [each for value in values for each in (_flat(value) if isinstance(value, list) else [value])]


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
