"""Modules: what assignment registers, under which names it is found, and what train, to, apply and the rest do."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor, nn
from gpucnn.nn import Linear, Module, Parameter, ReLU, Sequential


class Block(Module):
    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.scale = Parameter(np.ones(size, np.float32))
        self.register_buffer("mean", gpucnn.zeros(size))
        self.register_buffer("count", gpucnn.tensor(0))
        self.register_buffer("unused", None)
        self.linear = Linear(size, size)
        self.plain = 5

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x * self.scale)  # type: ignore[no-any-return]


class Net(Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.rest = Sequential(Block(), ReLU())


def names(pairs: Any) -> list[str]:
    return [name for name, _ in pairs]


# --------------------------------------------------------------------------------------------- registration


def test_names_join_with_dots_in_order_of_registration() -> None:
    net = Net()
    assert names(net.named_parameters()) == [
        "first.scale",
        "first.linear.weight",
        "first.linear.bias",
        "rest.0.scale",
        "rest.0.linear.weight",
        "rest.0.linear.bias",
    ]
    assert names(net.named_buffers()) == ["first.mean", "first.count", "rest.0.mean", "rest.0.count"]
    assert names(net.named_modules()) == ["", "first", "first.linear", "rest", "rest.0", "rest.0.linear", "rest.1"]
    assert names(net.named_modules("model"))[:2] == ["model", "model.first"]
    assert names(net.named_children()) == ["first", "rest"]
    assert [type(m).__name__ for m in net.modules()] == [type(m).__name__ for _, m in net.named_modules()]
    assert [p.shape for p in net.parameters()] == [(2,), (2, 2), (2,)] * 2
    assert list(net.children()) == [net.first, net.rest]


def test_assignment_replaces_and_keeps_the_place() -> None:
    block = Block()
    old = block.linear
    block.linear = Linear(2, 2, bias=False)
    block.scale = Parameter(np.zeros(2, np.float32))
    assert block.linear is not old
    assert names(block.named_parameters()) == ["scale", "linear.weight"]
    assert block.scale.tolist() == [0, 0]
    block.mean = gpucnn.ones(2)
    assert names(block.named_buffers()) == ["mean", "count"]
    assert block.mean.tolist() == [1, 1]


def test_assignment_of_another_kind_moves_the_name() -> None:
    block = Block()
    block.plain = Linear(1, 1)  # type: ignore[assignment]
    assert "plain.weight" in names(block.named_parameters())
    assert "plain" not in vars(block)
    block.mean = Parameter(np.zeros(2, np.float32))
    assert "mean" in names(block.named_parameters())
    assert names(block.named_buffers()) == ["count"]
    block.linear = Parameter(np.zeros(1, np.float32))  # type: ignore[assignment]
    assert names(block.named_children()) == ["plain"]


def test_none_takes_a_registered_thing_away_but_not_its_name() -> None:
    block = Block()
    block.linear.bias = None
    assert names(block.named_parameters()) == ["scale", "linear.weight"]
    assert block.linear(gpucnn.ones(1, 2)).shape == (1, 2)
    block.linear.bias = Parameter(np.ones(2, np.float32))
    assert "linear.bias" in names(block.named_parameters())
    block.mean = None  # type: ignore[assignment]
    assert block.mean is None
    assert names(block.named_buffers()) == ["count"]
    block.linear = None  # type: ignore[assignment]
    assert block.linear is None
    assert names(block.named_modules()) == [""]
    assert names(block.state_dict().items()) == ["scale", "count"]
    block.train(False).to("float64").zero_grad()
    assert "linear" not in repr(block)


def test_what_is_registered_is_not_replaced_by_something_else_in_silence() -> None:
    block = Block()
    for name, value, kind in (
        ("scale", gpucnn.ones(2), "Parameter"),
        ("scale", np.ones(2), "Parameter"),
        ("mean", np.ones(2), "Tensor"),
        ("mean", 1.0, "Tensor"),
        ("linear", lambda x: x, "Module"),
    ):
        with pytest.raises(TypeError, match=f"Block: '{name}' is a registered {kind}.*del it first"):
            setattr(block, name, value)
    del block.linear
    block.linear = lambda x: x  # type: ignore[assignment]
    assert names(block.named_children()) == []


def test_attributes_are_deleted() -> None:
    block = Block()
    del block.scale, block.mean, block.linear, block.plain
    assert names(block.state_dict().items()) == ["count"]
    for name in ("scale", "mean", "linear", "plain", "nothing"):
        with pytest.raises(AttributeError, match=f"Block.*'{name}'"):
            getattr(block, name)
        with pytest.raises(AttributeError):
            delattr(block, name)
    assert not hasattr(block, "scale")


def test_wrong_names_and_kinds_are_refused() -> None:
    module = Module()
    for name in ("", "a.b", "forward", "parameters", "training"):
        for run in (
            lambda name=name: module.add_module(name, ReLU()),
            lambda name=name: module.register_buffer(name, gpucnn.zeros(1)),
            lambda name=name: module.register_parameter(name, Parameter([1.0])),
        ):
            with pytest.raises(ValueError, match="is empty, has a dot, or names an attribute of the class"):
                run()
    for register, value in (
        (module.add_module, Linear),
        (module.add_module, gpucnn.zeros(1)),
        (module.register_buffer, np.zeros(1)),
        (module.register_parameter, gpucnn.zeros(1)),
        (module.register_parameter, ReLU()),
    ):
        with pytest.raises(TypeError, match="'x' must be a"):
            register("x", value)  # type: ignore[operator]
    with pytest.raises(ValueError, match="an attribute of the class"):
        module.zero_grad = ReLU()  # type: ignore[assignment, method-assign]
    assert names(module.named_modules()) == [""]


def test_a_module_without_super_init_says_so() -> None:
    class Hasty(Module):
        def __init__(self, value: Any) -> None:
            self.plain = 3
            self.x = value

    for value in (Parameter([1.0]), ReLU()):
        with pytest.raises(AttributeError, match=r"Hasty: call super\(\).__init__\(\)"):
            Hasty(value)
    hasty = Hasty(1)
    for run in (
        hasty.state_dict,
        lambda: list(hasty.parameters()),
        hasty.train,
        lambda: hasty.register_buffer("b", None),
    ):
        with pytest.raises(AttributeError, match=r"Hasty: call super\(\).__init__\(\)"):
            run()


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Net does not define forward"):
        Net()(gpucnn.ones(1))
    assert not hasattr(Net(), "nothing")
    with pytest.raises(AttributeError, match="Net has no attribute 'nothing'"):
        Net().nothing  # noqa: B018


def test_registered_names_are_offered_for_completion() -> None:
    assert {"scale", "mean", "linear", "plain", "forward"} <= set(dir(Block()))


# ------------------------------------------------------------------------------------------------- sharing


def test_what_is_shared_is_counted_once_and_saved_under_each_name() -> None:
    shared = Linear(2, 2)
    net = Sequential(shared, ReLU(), shared)
    assert names(net.named_parameters()) == ["0.weight", "0.bias"]
    assert names(net.named_modules()) == ["", "0", "1"]
    assert names(net.state_dict().items()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    tied = Sequential(Linear(2, 2, bias=False), Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    tied[1].register_buffer("seen", gpucnn.zeros(1))
    tied[0].register_buffer("seen", tied[1].seen)
    assert len(list(tied.parameters())) == len(list(tied.buffers())) == 1
    tied(gpucnn.ones(1, 2)).sum().backward()
    twice = tied[0].weight.grad
    assert twice is not None
    assert twice.numpy().any()


def test_calls_add_up_on_a_shared_parameter() -> None:
    layer = Linear(1, 1, bias=False)
    with gpucnn.no_grad():
        layer.weight.copy_([[3.0]])
    Sequential(layer, layer)(gpucnn.ones(1, 1)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[6]]


# ------------------------------------------------------------------------------------- train, grads, apply, to


def test_train_and_eval_reach_every_module() -> None:
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.rest.train()
    assert [m.training for m in net.modules()] == [False, False, False, True, True, True, True]
    assert net.train() is net
    assert all(m.training for m in net.modules())


def test_a_modules_own_train_is_called() -> None:
    class Frozen(Block):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    net = Sequential(Frozen(), ReLU()).train()
    assert [m.training for m in net.modules()] == [True, False, False, True]


def test_gradients_are_forgotten_and_switched() -> None:
    net = Block()
    net(gpucnn.ones(1, 2)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_(False) is net
    assert not net(gpucnn.ones(1, 2)).requires_grad
    assert net.requires_grad_().scale.requires_grad


def test_apply_goes_from_the_children_up() -> None:
    seen: list[str] = []
    net = Net()
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen == ["Linear", "Block", "Linear", "Block", "ReLU", "Sequential", "Net"]


def test_to_converts_floats_in_place_and_leaves_integers() -> None:
    net = Net()
    scale = net.first.scale
    net.first(gpucnn.ones(1, 2)).sum().backward()
    assert net.to("float64") is net
    assert net.first.scale is scale
    assert {t.dtype for t in net.parameters()} == {np.dtype("float64")}
    assert {name: str(t.dtype) for name, t in net.first.named_buffers()} == {"mean": "float64", "count": "int64"}
    assert scale.grad is not None
    assert scale.grad.dtype == np.float64
    net.first(gpucnn.ones(1, 2, dtype="float64")).sum().backward()
    assert scale.requires_grad
    assert net.to(dtype=np.float16, device="cpu").first.mean.dtype == np.float16
    assert net.cpu().first.mean.dtype == np.float16
    layer = nn.Conv2d(3, 4, 3)
    strides = layer.weight.data.strides
    assert layer.to("float64").to("float32").weight.data.strides == strides


@pytest.mark.parametrize("dtype", ["int64", "bool", np.int8])
def test_to_refuses_dtypes_that_are_no_floats(dtype: Any) -> None:
    net = Net()
    for run in (lambda: net.to(dtype), lambda: net.to(dtype=dtype)):
        with pytest.raises(TypeError, match="floating dtypes only"):
            run()
    with pytest.raises(TypeError, match="'float33'"):
        net.to("float33")
    assert {t.dtype for t in net.parameters()} == {np.dtype("float32")}


def test_options_pass_through_a_call() -> None:
    class Takes(Module):
        def forward(self, a: int, *, b: int) -> int:
            return a + b

    assert Takes()(1, b=2) == 3


# -------------------------------------------------------------------------------------------- print, copy


def test_repr_is_a_tree() -> None:
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Block(\n"
        "    (linear): Linear(in_features=2, out_features=2, bias=True)\n"
        "  )\n"
        "  (rest): Sequential(\n"
        "    (0): Block(\n"
        "      (linear): Linear(in_features=2, out_features=2, bias=True)\n"
        "    )\n"
        "    (1): ReLU()\n"
        "  )\n"
        ")"
    )


@pytest.mark.parametrize(
    "through", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_modules_are_copied_whole(through: Any) -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    net = Sequential(shared, ReLU(), shared).eval()
    twin = through(net)
    assert twin[0] is twin[2]
    assert not twin.training
    assert repr(twin) == repr(net)
    x = gpucnn.ones(1, 3, 4, 4)
    assert np.array_equal(twin(x).numpy(), net(x).numpy())
    with gpucnn.no_grad():
        twin[0].weight.copy_(np.zeros((3, 3, 3, 3)))
    assert net[0].weight.numpy().any()
    assert twin[0].weight.data.strides == net[0].weight.data.strides
    assert isinstance(twin[0].weight, Parameter)
