"""What a few seeds tell: means with Student's intervals, and differences on the same seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# The 97.5th percentile of Student's t for 1, 2, ... degrees of freedom.
STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


@dataclass(frozen=True)
class Estimate:
    """A mean with 95 % on either side, and how many values stand behind it; NaN for an interval
    that one value cannot have."""

    mean: float
    low: float
    high: float
    count: int


def over_seeds(values: Sequence[float]) -> Estimate:
    """mean +- t s / sqrt(n), s with n - 1: the values of n seeds taken as normally distributed.

    Raises ValueError without a value and for more than STUDENT goes up to."""
    count = len(values)
    if not 1 <= count <= len(STUDENT) + 1:
        raise ValueError(f"{count} seeds: from 1 to {len(STUDENT) + 1} can be summed up")
    mean = sum(values) / count
    if count == 1:
        return Estimate(mean, math.nan, math.nan, count)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half = STUDENT[count - 2] * math.sqrt(variance / count)
    return Estimate(mean, mean - half, mean + half, count)


def paired(before: Mapping[int, float], after: Mapping[int, float]) -> Estimate:
    """after - before of every seed that both have: what the seed gives to both cancels out.

    Raises ValueError where they have none in common."""
    return over_seeds([after[seed] - before[seed] for seed in sorted(before.keys() & after.keys())])


def percent(found: Estimate, *, signed: bool = False) -> str:
    """`12.3 [11.0, 13.6]` of shares in [0, 1], in per cent; `?` for what is not known."""
    number = lambda value: "?" if math.isnan(value) else f"{100 * value:{form}}"  # noqa: E731
    form = "+.2f" if signed else ".2f"
    return f"{number(found.mean)} [{number(found.low)}, {number(found.high)}]"
