"""One rule for what may be claimed of a change."""

import math
import re

import pytest

from tests.shared import REPOSITORY
from training.experiments.claims import HELPS, HURTS, NONE, has_learnt, verdict

UNKNOWN = (math.nan, math.nan)
ABOVE, BELOW, ACROSS = (0.01, 0.02), (-0.02, -0.01), (-0.01, 0.02)


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ((ABOVE, ABOVE), HELPS),
        ((BELOW, BELOW), HURTS),
        ((ABOVE, BELOW), NONE),
        ((ABOVE, ACROSS), NONE),
        ((ACROSS, ACROSS), NONE),
        ((ABOVE, UNKNOWN), NONE),
        ((UNKNOWN, BELOW), NONE),
        ((ABOVE,), NONE),
        ((ACROSS, UNKNOWN), NONE),
        ((UNKNOWN, UNKNOWN), NONE),
        (((0.0, 0.1), ABOVE), NONE),
    ],
)
def test_a_claim_takes_two_intervals_on_one_side_of_zero(intervals, said):
    assert verdict(intervals) == said


def test_nothing_is_claimed_of_an_arm_that_has_not_learnt():
    said = verdict((ABOVE, ABOVE), unlearnt=["ESCA with ArcFace (EER 39.38 %)"])
    assert said == "no claim, as ESCA with ArcFace (EER 39.38 %) has hardly learnt"


@pytest.mark.parametrize(
    ("error", "guess", "learnt"),
    [(0.15, 0.5, True), (0.3938, 0.5, False), (0.117, 0.2034, True), (0.5, 0.5, False)],
)
def test_an_arm_has_learnt_whose_error_is_far_below_a_guesss(error, guess, learnt):
    assert has_learnt(error, guess) is learnt


PAGES = [
    REPOSITORY / "docs" / f"{n}.md" for n in ("ablation", "expression", "attributes", "surgery")
]
CARDS = sorted((REPOSITORY / "service" / "models").glob("*/CARD.md"))


@pytest.mark.parametrize(
    "page", [*PAGES, *CARDS], ids=lambda page: f"{page.parent.name}/{page.name}"
)
def test_the_committed_pages_and_cards_claim_by_the_rule(page):
    said = [line for line in page.read_text().splitlines() if " in place of " in line]
    for line in said:
        verdict_ = re.split(r"\d seeds?: |one seed: ", line)[-1]
        if re.search("helps|hurts|better|worse", verdict_):
            intervals = re.findall(r"\[([+-]\d+\.\d+), ([+-]\d+\.\d+)\]", line)
            sides = {(float(low) > 0) - (float(high) < 0) for low, high in intervals}
            assert (len(intervals), len(sides), 0 in sides) == (2, 1, False), line
        assert not ("ArcFace in place of softmax" in line and "hurts" in line), line
