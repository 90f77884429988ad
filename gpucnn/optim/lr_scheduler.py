"""Learning rates as functions of the step: nothing adds up, so a resumed run has the rates of an undisturbed one.

A schedule sets its optimiser's rates when it is made and after every `step()`; call that after `optimizer.step()`.
Whether a step is a batch or an epoch is the caller's choice.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from gpucnn.optim.optimizer import Optimizer


class LRScheduler:
    """Sets each group's rate to `rate(its own initial rate, step)`: by default that rate times `factor(step)`."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.last_step = 0
        self._apply()

    def factor(self, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} does not define factor")

    def rate(self, base: float, step: int) -> float:
        """The rate at `step` of a group whose initial rate is `base`."""
        return base * self.factor(step)

    def momentum(self, step: int) -> float | None:
        """The momentum (Adam's first beta) at `step`, or None where the schedule leaves it alone."""
        return None

    def step(self) -> None:
        self.last_step += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _apply(self) -> None:
        momentum = self.momentum(self.last_step)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base, self.last_step)
            if momentum is not None and "momentum" in group:
                group["momentum"] = momentum
            elif momentum is not None and "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])

    def state_dict(self) -> dict[str, object]:
        return {"last_step": self.last_step, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        rates = state["base_lrs"]
        if not isinstance(rates, list) or len(rates) != len(self.base_lrs):
            raise ValueError(f"{type(self).__name__}: the state is of other parameter groups")
        self.base_lrs, self.last_step = [float(rate) for rate in rates], int(str(state["last_step"]))
        self._apply()


class LambdaLR(LRScheduler):
    """factor(step) as given."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        self._factor = lr_lambda
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return self._factor(step)


class StepLR(LRScheduler):
    """gamma ** (step // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """gamma for every milestone that has been reached."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return self.gamma ** bisect_right(self.milestones, step)


class CosineAnnealingLR(LRScheduler):
    """From the initial rate to eta_min over T_max steps along half a cosine (Loshchilov and Hutter, "SGDR", 2017)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max must be at least 1, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2


class LinearLR(LRScheduler):
    """Warm-up: from start_factor to end_factor in a straight line over total_iters steps, constant afterwards."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        if total_iters < 1 or not 0 < start_factor <= 1:
            raise ValueError(
                f"LinearLR: needs 0 < start_factor <= 1 and total_iters >= 1, got {start_factor} and {total_iters}"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        done = min(step, self.total_iters) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * done


class OneCycleLR(LRScheduler):
    """Up to max_lr and down to almost nothing in one cycle, momentum the other way round.

    Smith and Topin, "Super-convergence" (2018), with PyTorch's arguments and cosine shape: from max_lr / div_factor to
    max_lr over pct_start of the steps, then down to max_lr / (div_factor * final_div_factor). The groups' own rates are
    not used. With cycle_momentum the momentum, or Adam's first beta, goes from max_momentum to base_momentum and back.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if total_steps < 1 or not 0.0 <= pct_start <= 1.0:
            raise ValueError(
                f"OneCycleLR: needs total_steps >= 1 and pct_start in [0, 1], got {total_steps} and {pct_start}"
            )
        self.total_steps, self.peak = total_steps, pct_start * total_steps - 1
        self.momenta = (base_momentum, max_momentum) if cycle_momentum else None
        self.start, self.max_lr, self.end = max_lr / div_factor, max_lr, max_lr / (div_factor * final_div_factor)
        super().__init__(optimizer)

    def rate(self, base: float, step: int) -> float:
        return self._along(step, self.start, self.max_lr, self.end)

    def momentum(self, step: int) -> float | None:
        return None if self.momenta is None else self._along(step, self.momenta[1], self.momenta[0], self.momenta[1])

    def _along(self, step: int, first: float, top: float, last: float) -> float:
        if step < self.total_steps and step <= self.peak:
            return _cosine(first, top, step / self.peak if self.peak else 1.0)
        rest = self.total_steps - 1 - self.peak
        return _cosine(top, last, min(1.0, (step - self.peak) / rest) if rest > 0 else 1.0)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class SequentialLR(LRScheduler):
    """One schedule after another: schedulers[i] runs from milestones[i-1], counting its steps from there."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        if len(schedulers) != len(milestones) + 1:
            raise ValueError(f"SequentialLR: {len(schedulers)} schedules need {len(schedulers) - 1} milestones")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        for group, base in zip(optimizer.param_groups, schedulers[0].base_lrs, strict=True):
            group["lr"] = base  # each schedule has set rates when it was made
        super().__init__(optimizer)

    def _apply(self) -> None:
        number = bisect_right(self.milestones, self.last_step)
        schedule = self.schedulers[number]
        schedule.base_lrs = self.base_lrs
        schedule.last_step = self.last_step - (self.milestones[number - 1] if number else 0)
        schedule._apply()
