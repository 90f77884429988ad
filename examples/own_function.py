"""A differentiable function of one's own: Swish, x * sigmoid(x), checked against finite differences.

python examples/own_function.py
"""

import numpy as np

import gpucnn
from gpucnn.testing import gradcheck


class Swish(gpucnn.Function):
    """Ramachandran, Zoph and Le, "Searching for activation functions" (2017)."""

    @staticmethod
    def forward(ctx, x):
        gate = 1 / (1 + np.exp(-x))
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx, dy):
        x, gate = ctx.saved
        return dy * (gate + x * gate * (1 - gate))


if __name__ == "__main__":
    x = gpucnn.tensor(np.linspace(-4, 4, 9), requires_grad=True)
    gradcheck(Swish.apply, [x])
    Swish.apply(x).sum().backward()
    print("gradient of swish at -4..4:", np.round(x.grad.numpy(), 3).tolist())
