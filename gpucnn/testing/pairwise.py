"""All-pairs sampling: few cases in which every two values of different factors meet.

Most faults need one value, or two together, to show; the cases that cover all pairs are few where the full product is
millions. The greedy construction follows Cohen, Dalal, Fredman and Patton, "The AETG system" (IEEE Trans. Software
Eng. 23, 1997), with constraints met by trying again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

_CANDIDATES = 3  # complete cases built for a pair, of which the one that covers most is taken
_ATTEMPTS = 40  # tries at a valid case before a pair is given up as impossible


def pairwise(
    factors: Mapping[str, Sequence[Any]], seed: int | str, valid: Callable[[dict[str, Any]], bool] = lambda case: True
) -> Iterator[dict[str, Any]]:
    """Yields cases (a value for each factor) until every pair of values that a valid case can hold has been seen.

    The same factors and seed give the same cases. A pair for which no valid case turns up in a number of tries is given
    up, so with tight constraints a feasible but rare pair can stay uncovered; another seed tries anew.

    Args:
        factors: for each name its values.
        seed: of the order in which pairs are taken up and of all ties.
        valid: whether a complete case may be used.
    """
    rng = random.Random(f"pairwise {seed}")
    # Slots are the values of all factors in one numbering; sets of slots are the bits of an integer.
    values = [value for options in factors.values() for value in options]
    slots: list[range] = []
    for options in factors.values():
        first = slots[-1].stop if slots else 0
        slots.append(range(first, first + len(options)))
    every = (1 << len(values)) - 1
    uncovered = [every & ~_bits(own) for own in slots for _ in own]  # for each slot those it has yet to meet
    queue = [(a, b) for i, first in enumerate(slots) for second in slots[i + 1 :] for a in first for b in second]
    rng.shuffle(queue)

    def complete(start: tuple[int, int], greedy: float) -> list[int]:
        """A slot for each factor: those of `start`, then in random order one that meets most, or any at all."""
        chosen = {factor: slot for factor, own in enumerate(slots) for slot in start if slot in own}
        met = _bits(start)
        rest = [factor for factor in range(len(slots)) if factor not in chosen]
        rng.shuffle(rest)
        for factor in rest:
            options = rng.sample(slots[factor], len(slots[factor]))
            if rng.random() < greedy:
                gains = [(uncovered[slot] & met).bit_count() for slot in options]
                chosen[factor] = options[gains.index(max(gains))]
            else:
                chosen[factor] = options[0]
            met |= 1 << chosen[factor]
        return [chosen[factor] for factor in range(len(slots))]

    for pair in queue:
        if not uncovered[pair[0]] >> pair[1] & 1:
            continue
        candidates: list[list[int]] = []
        for attempt in range(_ATTEMPTS):
            chosen = complete(pair, greedy=1 - attempt / _ATTEMPTS)  # ever less choosy
            if valid(dict(zip(factors, (values[slot] for slot in chosen), strict=True))):
                candidates.append(chosen)
                if len(candidates) == _CANDIDATES:
                    break
        if candidates:
            best = max(candidates, key=lambda chosen: sum((uncovered[s] & _bits(chosen)).bit_count() for s in chosen))
            for slot in best:
                uncovered[slot] &= ~_bits(best)
            yield dict(zip(factors, (values[slot] for slot in best), strict=True))


def _bits(slots: Iterable[int]) -> int:
    return sum(1 << slot for slot in slots)
