"""Memory in the books: what ops really hold for the gradients, and what inference holds at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from summary_checks import books

import gpucnn
from gpucnn import Tensor, models, nn
from gpucnn import functional as F
from gpucnn.books import summary
from gpucnn.graph import Node, owner


def nodes_below(results: list[Tensor]) -> Iterator[Node]:
    waiting, seen = [tensor.node[0] for tensor in results if tensor.node], set()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting += [edge[0] for edge in node.edges if isinstance(edge, tuple)]


def held_by_graph(model: nn.Module, shape: tuple[int, ...], batch: int) -> int:
    """Bytes of distinct memory that the graph of a training pass holds, with its outputs, without parameters."""
    model.train()
    result = model(gpucnn.zeros(batch, *shape))
    results = [result] if isinstance(result, Tensor) else list(result)
    arrays = [result.data for result in results]
    for node in nodes_below(results):
        assert node.context is not None
        arrays += [array for array in node.context.saved if array is not None]
    state = {id(owner(tensor.data)) for tensor in (*model.parameters(), *model.buffers())}
    return sum({id(o): o.nbytes for o in map(owner, arrays) if id(o) not in state}.values())


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet5", (1, 28, 28)), ("resnet18", (3, 64, 64)), ("mobilenet_v2", (3, 64, 64)), ("googlenet", (3, 64, 64))],
)
def test_training_holds_what_the_graph_holds(name: str, shape: tuple[int, ...]) -> None:
    model = models.build(name)
    found = summary(model, shape)
    assert abs(found.training_memory - held_by_graph(model, shape, 2) / 2) <= len(found.layers)


def test_each_memory_is_booked_to_the_layer_that_made_it() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 5))
    rows = {entry.kind: entry for entry in summary(net, (1, 8, 8)).layers}
    assert rows["input"].training_memory == 64 * 4  # the convolution's weight gradient needs it
    assert rows["Conv2d"].training_memory == 0  # ReLU's gradient follows from its own output
    assert rows["ReLU"].training_memory == 2 * 36 * 4
    assert rows["MaxPool2d"].training_memory == 18 * 1  # a byte for each winner; flattening copies its output
    assert rows["Flatten"].training_memory == 18 * 4
    assert rows["Linear"].training_memory == 5 * 4  # the output
    assert [rows[kind].memory for kind in ("input", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear")] == [
        256, 288, 288, 72, 72, 20,
    ]  # fmt: skip


def test_a_frozen_beginning_holds_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    net[0].freeze()
    found = summary(net, (1, 8, 8))
    assert [entry.training_memory for entry in found.layers] == [0, 0, 1024, 0, 1024]
    assert (found.parameters, found.trained_parameters) == (40 + 148, 148)
    assert "148 of them trained" in str(found)
    net[2].freeze()
    assert summary(net, (1, 8, 8)).training_memory == 1024  # the output alone


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def test_what_inference_must_hold_at_once() -> None:
    image = 2 * 16 * 4
    plain = nn.Sequential(*[nn.ReLU() for _ in range(5)])
    assert summary(plain, (2, 4, 4)).peak_memory == 2 * image
    found = summary(Residual(), (2, 4, 4))
    assert found.peak_memory == 3 * image  # the sum, and both of its operands
    assert found.peak_layer == "Add"
    assert found.memory == 4 * image
    narrow = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Conv2d(1, 8, 1), nn.Conv2d(8, 1, 1))
    assert summary(narrow, (2, 4, 4)).peak_memory == (8 + 1) * 64
    assert summary(narrow, (2, 4, 4)).peak_layer == "1 (Conv2d)"
    views = nn.Sequential(nn.Flatten(), nn.Flatten(), nn.Flatten())
    assert summary(views, (4,)).peak_memory == 16
    assert summary(nn.Sequential(), (2, 4, 4)).peak_memory == image


def test_float64_and_float16_take_their_own_bytes() -> None:
    for dtype, factor in (("float64", 2.0), ("float16", 0.5)):
        found = summary(models.lenet5().to(dtype=dtype), (1, 28, 28))
        assert found.dtype == dtype
        assert found.memory == books("lenet5", 1, 28, 28).memory * factor
        assert found.parameter_bytes == 61_706 * 4 * factor
