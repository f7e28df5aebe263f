"""What may be claimed of a change: one rule for every page and, by their sentences, every card.

A change helps or hurts only where two intervals lie on one side of zero: over seeds, and over the
people or faces that were measured. One interval alone claims nothing, however far it is from zero;
nor does a comparison with an arm that has not learnt, which says nothing of where it would end."""

import math
from collections.abc import Sequence

Interval = tuple[float, float]  # low and high of a difference; NaN where it is not known

HELPS, HURTS, NONE = "it helps here", "it hurts here", "no difference is shown here"
SHARE_OF_A_GUESS = 0.75  # the error of an arm that has learnt is at most this of a guess's
RULE = """A change is said to help or hurt only where both intervals lie on one side of zero, and
only between arms that have learnt: whose error is at most three quarters of a guess's. One interval
alone, as of one seed, claims nothing."""


def verdict(intervals: Sequence[Interval], *, unlearnt: Sequence[str] = ()) -> str:
    """What may be said of a difference of which more is better.

    intervals: those that were measured, NaN or absent for one that was not. unlearnt: the arms, on
    either side, that have not learnt, as a reader knows them."""
    if unlearnt:
        have = "has" if len(unlearnt) == 1 else "have"
        return f"no claim, as {' and '.join(unlearnt)} {have} hardly learnt"
    known = [(low, high) for low, high in intervals if not (math.isnan(low) or math.isnan(high))]
    sides = {1 if low > 0 else -1 if high < 0 else 0 for low, high in known}
    if len(known) < 2:
        return NONE
    return {(1,): HELPS, (-1,): HURTS}.get(tuple(sides), NONE)


def has_learnt(error: float, of_a_guess: float) -> bool:
    """True if an arm, whose mean error this is, is clearly better than guessing."""
    return error <= SHARE_OF_A_GUESS * of_a_guess
