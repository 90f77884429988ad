"""What optimisers share: groups of parameters, their state, saving and loading it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpucnn.backend import Array, accumulator, namespace, to_device
from gpucnn.graph import wrote
from gpucnn.ops.optim import Guard, step
from gpucnn.ops.registry import KernelTable
from gpucnn.tensor import Tensor, as_array


class Optimizer:
    """Parameters in groups, each with options of its own.

    Args:
        params: tensors, or dicts {"params": tensors, option: value, ...}, one a group.
        defaults: options of the groups that do not set them. With the option `master_weights` each parameter of 16 bits
            has a copy in float32, "master" in its state, which is updated in its place and rounded: steps too small for
            16 bits add up (Micikevicius et al., "Mixed precision training", 2018). A parameter that is written from
            elsewhere takes its copy along. Others are their own copies.

    Raises:
        ValueError: no parameters, one given twice, an unknown option.
        TypeError: something that is not a Tensor.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(f"{type(self).__name__} takes a list of tensors, got one tensor")
        given = list(params)
        if not given:
            raise ValueError("an optimiser needs parameters, got none")
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[int, dict[str, Any]] = {}
        """For each parameter, by its number over all groups: its arrays and counts."""
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: Any) -> None:
        """Adds {"params": tensors, option: value, ...}; raises as the constructor does."""
        if not isinstance(group, dict) or "params" not in group:
            raise ValueError(f"{type(self).__name__}: a parameter group is a dict with 'params' in it, got {group!r}")
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        unknown = set(group) - set(self.defaults) - {"params"}
        if unknown:
            raise ValueError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"{type(self).__name__} takes tensors, got {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError("an optimiser can change leaves only, got the result of an operation")
            if id(param) in known:
                raise ValueError("a parameter was given twice")
            known.add(id(param))
        options = {**self.defaults, **{name: value for name, value in group.items() if name != "params"}}
        self.check(options)
        self.param_groups.append({"params": params, **options})

    def check(self, options: dict[str, Any]) -> None:
        """Raises ValueError for options out of range."""
        for name in ("lr", "weight_decay", "momentum", "eps"):
            if not options.get(name, 0.0) >= 0.0:
                raise ValueError(f"{type(self).__name__}: {name} must not be negative, got {options[name]}")

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None

    def step(self, guard: Guard | None = None) -> None:
        """Changes every parameter that has a gradient, many by one kernel; nothing while the device flag is raised
        (gpucnn.flags).

        Args:
            guard: what a `GradScaler` found out about the gradients.
        """
        number, changed, updates = 0, [], []
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    kept = self.state.setdefault(number, {})
                    problem, state = self.prepare(param, group, kept)
                    if group.get("master_weights") and param.dtype.itemsize == 2:
                        if "master" not in kept:
                            kept["master"] = like(param)  # zeros, which the step finds not to be the parameter
                        state = (*state, kept["master"])
                        problem = problem._replace(master=True)
                    changed.append(param.data)
                    updates.append((problem, (param.data, param.grad.data, *state)))
                number += 1
        step(self.table, updates, guard or Guard())
        for data in changed:
            wrote(data)

    table: KernelTable
    """The kernels of the update rule."""

    def prepare(self, param: Tensor, group: dict[str, Any], state: dict[str, Any]) -> tuple[Any, tuple[Array, ...]]:
        """The problem of one parameter's next step, and the arrays of state that the kernel changes.

        `state` is the parameter's own dict, empty before the first step.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define prepare")

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number: {name: array or count}}, "param_groups": options and parameter numbers}."""
        groups, number = [], 0
        for group in self.param_groups:
            count = len(group["params"])
            options = {name: value for name, value in group.items() if name != "params"}
            groups.append({**options, "params": list(range(number, number + count))})
            number += count
        return {"state": {number: dict(values) for number, values in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` of an optimiser over the same parameters gave; ValueError if it does not fit."""
        groups = state["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise ValueError(f"{type(self).__name__}: the state is of other parameter groups")
        params = [p for group in self.param_groups for p in group["params"]]
        loaded: dict[int, dict[str, Any]] = {}
        for key, values in state["state"].items():
            param = params[int(key)]
            mine = loaded[int(key)] = {}
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    mine[name] = value
                    continue
                array = value.data if isinstance(value, Tensor) else as_array(value)
                if array.shape != param.shape:
                    kind = type(self).__name__
                    raise ValueError(f"{kind}: {name} has shape {array.shape}, its parameter {param.shape}")
                mine[name] = like(param)
                mine[name][...] = to_device(array, param.device)
        self.state = loaded
        for group, options in zip(self.param_groups, groups, strict=True):
            group.update({name: value for name, value in options.items() if name != "params"})


def like(param: Tensor) -> Array:
    """Zeros with the parameter's shape and order in memory, and the dtype that sums over its own are kept in."""
    return namespace(param.data).zeros_like(param.data, dtype=accumulator(param.dtype))
