"""Scaling of losses, for gradients that are too small for float16."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.arguments import whole
from gpucnn.backend import Array, device_of, empty, zeros
from gpucnn.graph import wrote
from gpucnn.ops import optim as ops
from gpucnn.optim.optimizer import Optimizer
from gpucnn.tensor import Tensor


@dataclass
class _Round:
    """Where one optimiser stands between two calls of update()."""

    optimizer: Optimizer
    found: Array
    divided: bool
    stepped: bool = False


class GradScaler:
    """Multiplies the loss by a scale and the gradients by its inverse, so that float16 holds what lies between.

        scaler = gpucnn.GradScaler()
        with gpucnn.autocast("float16"):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    Where a gradient came out infinite or NaN the optimiser's step changes nothing, and the scale is multiplied by
    `backoff_factor`; after `growth_interval` steps in a row without such trouble by `growth_factor`, unless that is
    beyond float32. Micikevicius et al., "Mixed precision training" (2018), section 3.2; names and rule are those of
    PyTorch's torch.amp.GradScaler. bfloat16 needs none of it.

    On a GPU nothing here waits for the GPU: what was found is a word in its memory that the optimiser's kernel reads,
    and the scale is another. `get_scale` and `state_dict` wait. What the host counts goes on in a step that changes
    nothing: learning-rate schedules, Adam's correction for starting at 0. A loss that is itself infinite or NaN is an
    error still (gpucnn.flags), and no matter of scale.

    Args:
        init_scale: to begin with; a power of two costs no accuracy.
        growth_factor: more than 1.
        backoff_factor: between 0 and 1.
        growth_interval: steps, at least 1.
        enabled: False makes `scale` return what it is given and `step` the optimiser's own, and the rest nothing.

    Raises:
        ValueError: numbers out of range.
        TypeError: what is no number.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self.enabled = bool(enabled)
        self._set(init_scale, growth_factor, backoff_factor, growth_interval)
        self._first = (float(init_scale), 0)
        """The scale and how many steps in a row were without trouble, until a loss says on which device."""
        self._now: tuple[Array, Array] | None = None
        """The same on the device: float32 (1,) and int32 (1,)."""
        self._rounds: dict[int, _Round] = {}

    def _set(self, scale: Any, growth: Any, backoff: Any, interval: Any, called: str = "init_scale") -> None:
        for name, value in ((called, scale), ("growth_factor", growth), ("backoff_factor", backoff)):
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"GradScaler: {name} must be a number, got {value!r}")
        if not (scale > 0 and math.isfinite(np.float32(scale))):
            raise ValueError(f"GradScaler: {called} must be positive and finite, got {scale}")
        if not (growth > 1 and math.isfinite(growth)):
            raise ValueError(f"GradScaler: growth_factor must be more than 1, got {growth}")
        if not 0 < backoff < 1:
            raise ValueError(f"GradScaler: backoff_factor must lie between 0 and 1, got {backoff}")
        if not 1 <= whole(interval, "GradScaler: growth_interval") < 2**31:
            raise ValueError(f"GradScaler: growth_interval must be at least 1, got {interval}")
        self._rule = ops.ScaleProblem(float(growth), float(backoff), int(interval))

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self.enabled

    def scale(self, outputs: Any) -> Any:
        """A loss times the scale, or a list or tuple of losses; one of 16 bits leaves as float32.

        Raises:
            ValueError: a loss on another device than the one before.
            TypeError: what is no floating tensor.
        """
        if not self.enabled:
            return outputs
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(self.scale(each) for each in outputs)
        if not isinstance(outputs, Tensor) or outputs.dtype.kind not in "fV":
            raise TypeError(f"GradScaler.scale takes floating tensors, got {_in_words(outputs)}")
        scale, _ = self._on(outputs.data)
        wide = outputs.to("float32") if outputs.dtype.itemsize == 2 else outputs
        return wide * Tensor(scale.reshape(()))

    def _on(self, like: Array) -> tuple[Array, Array]:
        if self._now is None:
            scale, clean = empty((1,), np.dtype(np.float32), like), empty((1,), np.dtype(np.int32), like)
            scale[...], clean[...] = self._first
            self._now = scale, clean
        elif device_of(like) != device_of(self._now[0]):
            where = f"{device_of(self._now[0])} and {device_of(like)}"
            raise ValueError(f"GradScaler: one scaler is for one device, this one has met {where}")
        return self._now

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divides the optimiser's gradients by the scale now, to clip them, say; `step` then leaves that out.

        Raises:
            RuntimeError: a second time before update(), after step(), or before scale().
            ValueError: gradients of float16: in it they lose what the scale saved. `step` alone divides in float32.
        """
        if not self.enabled:
            return
        made = self._rounds.get(id(optimizer))
        if made is not None:
            raise RuntimeError(f"GradScaler: unscale_() {'after step()' if made.stepped else 'twice'} before update()")
        self._look(optimizer, divides=True)

    def _look(self, optimizer: Optimizer, divides: bool) -> _Round:
        """Finds out about the gradients of an optimiser."""
        by_dtype: dict[np.dtype[Any], list[Array]] = {}
        for group in optimizer.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    by_dtype.setdefault(param.grad.dtype, []).append(param.grad.data)
        if self._now is None:
            raise RuntimeError("GradScaler: no loss was scaled: call scaler.scale(loss).backward() first")
        if divides and np.dtype(np.float16) in by_dtype:
            raise ValueError("GradScaler: gradients of float16 are not divided in place; step() divides in float32")
        loss_scale = self._now[0]
        found = zeros((1,), np.dtype(np.int32), loss_scale)
        for grads in by_dtype.values():
            for grad in grads:
                self._on(grad)
            ops.unscale(divides, grads, loss_scale, found, like=grads[0])
            if divides:
                for grad in grads:
                    wrote(grad)
        made = self._rounds[id(optimizer)] = _Round(optimizer, found, divides)
        return made

    def step(self, optimizer: Optimizer) -> None:
        """The optimiser's step with unscaled gradients, which changes nothing if one of them is infinite or NaN.

        Raises:
            RuntimeError: a second time before update(), or before scale().
            ValueError: gradients on another device than the loss.
        """
        if not self.enabled:
            optimizer.step()
            return
        made = self._rounds.get(id(optimizer))
        if made is None:
            made = self._look(optimizer, divides=False)
        if made.stepped:
            raise RuntimeError("GradScaler: step() twice before update()")
        assert self._now is not None
        optimizer.step(ops.Guard(None if made.divided else self._now[0], made.found))
        made.stepped = True

    def update(self, new_scale: float | None = None) -> None:
        """Makes the scale of the next step; once a step, after all optimisers'.

        Args:
            new_scale: the scale from now on, instead of what the rule makes.

        Raises:
            RuntimeError: neither step() nor unscale_() was called since the last time.
            ValueError: a `new_scale` that is not positive and finite.
        """
        if not self.enabled:
            return
        if new_scale is not None:
            self._set(new_scale, *self._rule, called="new_scale")
            like = None if self._now is None else self._now[0]
            self._first, self._now = (float(new_scale), self._clean()), None
            if like is not None:
                self._on(like)
        elif not self._rounds or self._now is None:
            raise RuntimeError("GradScaler: update() without step() or unscale_() since the last time")
        else:
            found = [made.found for made in self._rounds.values()]
            if len(found) > ops.MOST_FOUND:
                raise RuntimeError(f"GradScaler: {len(found)} optimisers in one step, at most {ops.MOST_FOUND} can be")
            self._now = ops.next_scale(self._rule, *self._now, found, like=self._now[0])
        self._rounds.clear()

    def get_scale(self) -> float:
        """The scale; 1.0 where not enabled. On a GPU this waits."""
        if not self.enabled:
            return 1.0
        return self._first[0] if self._now is None else float(self._now[0][0])

    def _clean(self) -> int:
        return self._first[1] if self._now is None else int(self._now[1][0])

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes, with PyTorch's keys; {} where not enabled. On a GPU this waits."""
        if not self.enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._rule.growth,
            "backoff_factor": self._rule.backoff,
            "growth_interval": self._rule.interval,
            "_growth_tracker": self._clean(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another scaler's `state_dict`, or one of PyTorch's, was made. Nothing where not enabled.

        Raises:
            ValueError: a state of a scaler that was not enabled, keys that are missing, numbers out of range.
        """
        if not self.enabled:
            return
        names = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
        if missing := [name for name in names if name not in state]:
            raise ValueError(f"GradScaler: the state lacks {', '.join(missing)}; one that was not enabled has none")
        scale, growth, backoff, interval, clean = (state[name] for name in names)
        self._set(scale, growth, backoff, interval, called="scale")
        self._first, self._now = (float(scale), int(clean)), None
        self._rounds.clear()


def _in_words(value: Any) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
