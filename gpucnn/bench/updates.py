"""The optimisers' updates as functions, so that they are measured as other functions are."""

from __future__ import annotations

from gpucnn import optim
from gpucnn.autograd import no_grad
from gpucnn.nn.parameter import Parameter
from gpucnn.optim import Optimizer
from gpucnn.tensor import Tensor


def sgd(param: Tensor, grad: Tensor, lr: float = 0.01, momentum: float = 0.9) -> Tensor:
    """`param` (any shape) after two steps of SGD with momentum along `grad`, of its shape; errors are the optimiser's.

    Two, since the first one finds no velocity."""
    parameter = _copy(param)
    return _updated(optim.SGD([parameter], lr=lr, momentum=momentum), parameter, grad)


def adam(param: Tensor, grad: Tensor, lr: float = 0.001) -> Tensor:
    """`param` (any shape) after two steps of Adam along `grad`, of its shape; errors are the optimiser's."""
    parameter = _copy(param)
    return _updated(optim.Adam([parameter], lr=lr), parameter, grad)


def _copy(param: Tensor) -> Parameter:
    with no_grad():
        return Parameter(param.detach().data.copy())


def _updated(optimizer: Optimizer, parameter: Parameter, grad: Tensor) -> Tensor:
    for _ in range(STEPS):
        parameter.grad = grad.detach()
        optimizer.step()
    return parameter.detach()


STEPS = 2

UPDATES = {"sgd": sgd, "adam": adam}
"""By name. A pass of one is its last step, all others being there to prepare it."""
