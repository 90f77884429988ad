"""The operations, with PyTorch's names, signatures and meaning; what a user passes is checked here.

Images are (N,C,H,W) or, unbatched, (C,H,W); filters (K, C/groups, R, S). Wrong arguments raise ValueError or TypeError
before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import backend, random
from gpucnn.arguments import normalize_axis, whole
from gpucnn.ops import conv2d as conv2d_ops
from gpucnn.ops import dropout as dropout_ops
from gpucnn.ops import elementwise, loss, pool2d
from gpucnn.ops import linear as linear_ops
from gpucnn.problem import IntPair, conv2d_problem, pool2d_problem
from gpucnn.reference.dropout import DropoutProblem
from gpucnn.reference.loss import CrossEntropyProblem
from gpucnn.tensor import Tensor, record

# ------------------------------------------------------------------------------------------------------- checks


def _tensor(value: Any, name: str, op: str) -> Tensor:
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise TypeError(f"{op}: {name} must be a gpucnn.Tensor, got {kind}; gpucnn.tensor(...) makes one")
    return value


def _floats_together(op: str, *optional: str, **operands: Tensor | None) -> None:
    """The operands are tensors of one floating dtype on one device; those named in `optional` may be None."""
    first_name, first = "", None
    for name, operand in operands.items():
        if operand is None and name in optional:
            continue
        operand = _tensor(operand, name, op)
        if first is None:
            first_name, first = name, operand
            if first.data.dtype.kind != "f":
                raise TypeError(f"{op}: {name} must have a floating dtype, got {first.dtype}")
        elif operand.data.dtype != first.data.dtype:
            raise TypeError(f"{op}: {first_name} has dtype {first.dtype}, but {name} has {operand.dtype}")
        elif operand.device != first.device:
            raise ValueError(f"{op}: {first_name} is on {first.device}, but {name} on {operand.device}")


def _hashable(op: str, **arguments: Any) -> list[Any]:
    """The arguments as keys of a cache: lists as tuples."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    for name, value in plain.items():
        try:
            hash(value)
        except TypeError:
            raise TypeError(f"{op}: {name} takes an int or a tuple of ints, got {value!r}") from None
    return list(plain.values())


def _batched(input: Tensor, run: Callable[[Tensor], Any]) -> Any:
    """Runs on (C,H,W) as on a batch of one."""
    if input.ndim != 3:
        return run(input)
    result = run(input.unsqueeze(0))
    return tuple(r.squeeze(0) for r in result) if isinstance(result, tuple) else result.squeeze(0)


def _bias_fits(op: str, bias: Tensor | None, outputs: int) -> None:
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"{op}: bias must have shape ({outputs},), one number an output channel, got {bias.shape}")


# -------------------------------------------------------------------------------------------------- convolution


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair | str = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    kernel: str | None = None,
) -> Tensor:
    """2-D cross-correlation of (N,C,H,W) or (C,H,W) with filters (K, C/groups, R, S): (N,K,P,Q) or (K,P,Q).

    P = floor((H + 2*padding - dilation*(R-1) - 1) / stride) + 1, Q likewise. Depthwise with groups=C.

    Args:
        bias: (K,) added to every position, or None.
        stride, dilation: int or (vertical, horizontal), at least 1.
        padding: zeros at each side: int or (vertical, horizontal), 'valid' (none) or 'same' (P=H, Q=W; stride 1).
        groups: input and output channels fall into that many groups which do not see each other.
        kernel: name of the forward kernel to force; default the registry's choice.

    Raises:
        ValueError: shapes or arguments that do not fit together, or `kernel` can't run this.
        TypeError: not tensors, not of one floating dtype.
    """
    _floats_together("conv2d", "bias", input=input, weight=weight, bias=bias)
    arguments = _hashable("conv2d", stride=stride, padding=padding, dilation=dilation, groups=groups)

    def run(x: Tensor) -> Tensor:
        problem = conv2d_problem(x.shape, weight.shape, *arguments)
        _bias_fits("conv2d", bias, problem.K)
        return record(  # type: ignore[no-any-return]
            conv2d_ops.Conv2d, (x, weight, bias), {"problem": problem, "kernel": kernel}
        )

    return _batched(input, run)  # type: ignore[no-any-return]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input (..., I) times weight (O,I) transposed, plus bias (O,): (..., O)."""
    _floats_together("linear", "bias", input=input, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ValueError(f"linear: weight must have shape (out_features, in_features), got {weight.shape}")
    outputs, inputs = weight.shape
    if not input.ndim or input.shape[-1] != inputs:
        raise ValueError(f"linear: input {input.shape} must end in the {inputs} features of weight {weight.shape}")
    _bias_fits("linear", bias, outputs)
    rows = input if input.ndim == 2 else input.reshape(int(np.prod(input.shape[:-1], dtype=np.int64)), inputs)
    y: Tensor = record(linear_ops.Linear, (rows, weight, bias), {})
    return y if input.ndim == 2 else y.reshape(*input.shape[:-1], outputs)


# ------------------------------------------------------------------------------------------------------ pooling


def max_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Each window's maximum: (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q); stride defaults to kernel_size.

    The gradient goes to the first of equal maxima in row-major order; a NaN is larger than any number.

    Args:
        padding: cells of -infinity at each side, at most half the window.
        ceil_mode: keep a last window that reaches beyond the image, as long as it starts inside.
        return_indices: return (output, indices), int64 positions h * W + w of the maxima.

    Raises:
        ValueError, TypeError: as conv2d.
    """
    _floats_together("max_pool2d", input=input)
    arguments = _hashable("max_pool2d", kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)

    def run(x: Tensor) -> Any:
        problem = pool2d_problem("max_pool2d", x.shape, *arguments, bool(ceil_mode))
        return record(pool2d.MaxPool2d, (x,), {"problem": problem, "return_indices": return_indices})

    return _batched(input, run)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Each window's average: (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q); stride defaults to kernel_size.

    Args:
        count_include_pad: padded zeros count as cells of the window.
        divisor_override: divide by this instead of the number of cells; not 0.

    Raises:
        ValueError, TypeError: as conv2d.
    """
    _floats_together("avg_pool2d", input=input)
    if divisor_override is not None and whole(divisor_override, "avg_pool2d: divisor_override") == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    arguments = _hashable("avg_pool2d", kernel_size=kernel_size, stride=stride, padding=padding)

    def run(x: Tensor) -> Tensor:
        problem = pool2d_problem("avg_pool2d", x.shape, *arguments, 1, bool(ceil_mode))
        options = {"count_include_pad": bool(count_include_pad), "divisor_override": divisor_override}
        return record(pool2d.AvgPool2d, (x,), {"problem": problem, **options})  # type: ignore[no-any-return]

    return _batched(input, run)  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------------------------- activations


def relu(input: Tensor) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    _floats_together("relu", input=input)
    return record(elementwise.ReLU, (input,), {})  # type: ignore[no-any-return]


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    _floats_together("sigmoid", input=input)
    return record(elementwise.Sigmoid, (input,), {})  # type: ignore[no-any-return]


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    _floats_together("tanh", input=input)
    return record(elementwise.Tanh, (input,), {})  # type: ignore[no-any-return]


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """log(exp(x) / sum(exp(x))) along `dim`, without overflow."""
    _floats_together("log_softmax", input=input)
    axis = normalize_axis(dim, input.ndim)
    rows: Tensor = record(loss.LogSoftmax, (_axis_last(input, axis),), {})
    if axis == input.ndim - 1:
        return rows
    return rows.permute(*range(axis), input.ndim - 1, *range(axis, input.ndim - 1))


def _axis_last(input: Tensor, axis: int) -> Tensor:
    """A view with `axis` last: for the channels of an image, the order in which memory has them already."""
    if axis == input.ndim - 1:
        return input
    return input.permute(*[i for i in range(input.ndim) if i != axis], axis)


def softmax(input: Tensor, dim: int) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, without overflow."""
    _floats_together("softmax", input=input)
    return log_softmax(input, dim).exp()


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zeroes each element with probability p and divides the others by 1 - p; the identity if not `training`.

    The mask is a function of the seed (`gpucnn.manual_seed`), of how many masks were drawn since, and of the element's
    place in (N,C,H,W) order: the same on every backend.
    """
    _floats_together("dropout", input=input)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be a probability in [0, 1], got {p}")
    if not training or p == 0.0:
        return input
    seed, call = random.next_call()
    problem = DropoutProblem(input.shape, float(p), seed, call)
    return record(dropout_ops.Dropout, (input,), {"problem": problem})  # type: ignore[no-any-return]


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim to end_dim as one, in logical (N,C,H,W) order."""
    return _tensor(input, "input", "flatten").flatten(start_dim, end_dim)


# ------------------------------------------------------------------------------------------------------- losses


def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of logits (N,C), (C,) or (N,C,d1,...) with class indices (N,), () or (N,d1,...).

    Args:
        target: integer tensor or array; entries equal to `ignore_index` take no part.
        weight: (C,) factor of each class; the mean then divides by the sum of the factors of the targets.
        reduction: 'none', 'mean' or 'sum'.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C).
        TypeError: logits not floating, labels not integers.
    """
    _floats_together("cross_entropy", "weight", input=input, weight=weight)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"cross_entropy: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    if not input.ndim:
        raise ValueError("cross_entropy: input needs an axis of classes, got a tensor without axes")
    ignored = whole(ignore_index, "cross_entropy: ignore_index")
    axis = 0 if input.ndim == 1 else 1
    classes = input.shape[axis]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"cross_entropy: weight must have shape ({classes},), one a class, got {weight.shape}")
    labels = target if isinstance(target, Tensor) else Tensor(target)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: target must hold integer class indices, got {labels.dtype}")
    if labels.device != input.device:
        raise ValueError(f"cross_entropy: input is on {input.device}, but target on {labels.device}")
    expected = input.shape[:axis] + input.shape[axis + 1 :]
    if labels.shape != expected:
        raise ValueError(
            f"cross_entropy: target must have shape {expected} for input {input.shape}, got {labels.shape}"
        )
    flat = backend.contiguous(labels.data).reshape(-1).astype(np.int64, copy=False)
    _check_labels(flat, classes, ignored, expected)
    rows = input if input.ndim == 2 else _axis_last(input, axis).reshape(flat.size, classes)
    problem = CrossEntropyProblem(ignored, float(label_smoothing), reduction)
    result: Tensor = record(loss.CrossEntropy, (rows, flat, weight), {"problem": problem})
    return result.reshape(*expected) if reduction == "none" else result


def _check_labels(labels: Any, classes: int, ignore_index: int, shape: tuple[int, ...]) -> None:
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
        if wrong.any():
            where = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), shape))
            raise ValueError(
                f"cross_entropy: label {int(labels[int(wrong.argmax())])} at {where} is outside [0, {classes})"
            )


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)**2, for each element or reduced by 'mean' or 'sum'."""
    _floats_together("mse_loss", input=input, target=target)
    if input.shape != target.shape:
        raise ValueError(f"mse_loss: input {input.shape} and target {target.shape} must have one shape")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"mse_loss: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    squares = (input - target) ** 2
    return {"none": lambda: squares, "mean": squares.mean, "sum": squares.sum}[reduction]()
