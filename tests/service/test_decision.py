"""Thresholds and decisions, on a calibration whose rates are known in closed form."""

import json
import math

import numpy as np
import pytest

from service.decision import (
    OWN_PEOPLE,
    SHARES,
    WORST,
    Calibration,
    decide,
    operating_points,
    quantiles,
    rate_at,
    seen_by,
    strictest,
    threshold_at,
    threshold_for_fmr,
    threshold_for_fpir,
)
from service.errors import PopulationUnknown

GRID = np.linspace(0, 1, 101)


def block() -> dict:
    """FMR 10^(-5 s), with bounds a factor of two apart; FNMR rises from 0 to 1."""
    fmr = 10 ** (-5 * GRID)
    columns = {
        "similarity": GRID,
        "fmr": fmr,
        "fmr_low": fmr / 2,
        "fmr_high": fmr * 2,
        "fnmr": GRID,
        "fnmr_low": GRID / 2,
        "fnmr_high": GRID,
    }
    curve = {name: column.tolist() for name, column in columns.items()}
    return {"people": 100, "crops": 1000, "smallest_fmr": 1e-4, "curve": curve}


def tailed() -> dict:
    """The same, its FMR measured to 0.8 only, and going on from there as 10^(-4 - 10 (s - 0.8))."""
    columns = block()
    beyond = GRID[81:]
    fmr = 10 ** (-4 - 10 * (beyond - 0.8))
    tail = {"similarity": beyond, "fmr": fmr, "fmr_low": fmr / 10, "fmr_high": fmr * 10}
    return {**columns, "tail": {name: column.tolist() for name, column in tail.items()}}


@pytest.fixture
def calibration() -> Calibration:
    return Calibration.from_manifest(json.loads(json.dumps(block())))


def test_a_target_between_grid_points_is_interpolated_in_its_logarithm(calibration):
    threshold = threshold_for_fmr(calibration, 10**-2.525)
    assert threshold.similarity == pytest.approx(0.505, abs=1e-6)
    assert threshold.target == 10**-2.525
    assert threshold.interval == pytest.approx((10**-2.525 / 2, 10**-2.525 * 2))


def test_a_target_under_what_the_set_supports_becomes_the_smallest_that_it_does(calibration):
    threshold = threshold_for_fmr(calibration, 1e-9)
    assert (threshold.target, threshold.by) == (1e-4, "target_fmr")
    assert threshold.similarity == pytest.approx(0.8)


def test_a_target_in_a_fitted_tail_is_answered_and_said_to_be_extrapolated():
    calibration = Calibration.from_manifest(tailed(), name="staff")
    threshold = threshold_for_fmr(calibration, 1e-5)
    assert (threshold.target, threshold.extrapolated, threshold.calibration) == (
        1e-5,
        True,
        "staff",
    )
    assert threshold.similarity == pytest.approx(0.9)
    assert threshold.interval == pytest.approx((1e-6, 1e-4))
    measured = threshold_for_fmr(calibration, 1e-4)
    assert (measured.similarity, measured.extrapolated) == (pytest.approx(0.8), False)
    assert threshold_for_fmr(calibration, 1e-9).target == pytest.approx(1e-6)  # the tail's end
    fpir = threshold_for_fpir(calibration, 1e-2, faces=1000)
    assert (fpir.by, fpir.target, fpir.extrapolated) == ("target_fpir", 1e-2, True)
    assert threshold_at(calibration, 0.95).extrapolated
    assert not threshold_at(calibration, 0.7).extrapolated


@pytest.mark.parametrize("target", [1e-11, 1e-300])
def test_of_a_tail_that_goes_on_and_on_no_rate_below_the_floor_is_promised(target):
    columns = tailed()
    for name in ("fmr", "fmr_low", "fmr_high"):
        steep = np.array(columns["tail"][name]) * 10 ** (-50 * (GRID[81:] - 0.8))
        columns["tail"][name] = steep.tolist()  # its last FMR is 1e-16
    threshold = threshold_for_fpir(Calibration.from_manifest(columns), target, faces=1000)
    assert threshold.target == pytest.approx(1e-9)  # 1,000 times 1e-12
    assert threshold.similarity == pytest.approx(0.94)  # the first of the grid below 1e-12


def test_a_target_has_its_threshold_and_its_cost_each_with_an_interval(calibration):
    points = {point.target_fmr: point for point in operating_points(calibration)}
    point = points[1e-2]
    assert (point.similarity, point.fmr) == (pytest.approx(0.4), pytest.approx(1e-2))
    assert (point.fmr_low, point.fmr_high) == pytest.approx((5e-3, 2e-2))
    assert (point.similarity_low, point.similarity_high) == pytest.approx(
        (0.4 - np.log10(2) / 5, 0.4 + np.log10(2) / 5)
    )
    assert (point.fnmr, point.fnmr_low, point.fnmr_high) == pytest.approx((0.4, 0.2, 0.4))
    assert [point.extrapolated for point in points.values()] == [False] * 4 + [True] * 2
    assert points[1e-6].similarity == points[1e-5].similarity == pytest.approx(0.8)
    assert points[1e-6].fmr == pytest.approx(1e-4)  # what is promised in its place


def test_uncertain_begins_where_the_lower_bound_meets_the_target(calibration):
    threshold = threshold_for_fmr(calibration, 1e-3)
    assert threshold.uncertain_from == pytest.approx(0.6 - np.log10(2) / 5)


def test_fpir_of_a_gallery_of_one_face_is_the_fmr(calibration):
    by_fpir, by_fmr = (
        threshold_for_fpir(calibration, 0.01, faces=1),
        threshold_for_fmr(calibration, 0.01),
    )
    assert by_fpir.similarity == pytest.approx(by_fmr.similarity)
    assert by_fpir.interval == pytest.approx(by_fmr.interval)


def test_fpir_grows_with_the_gallery_so_the_threshold_rises(calibration):
    small, large = (threshold_for_fpir(calibration, 0.1, faces=n) for n in (10, 100))
    assert small.similarity < large.similarity
    fmr = rate_at(calibration, calibration.fmr_G, large.similarity)
    assert 1 - (1 - fmr) ** 100 == pytest.approx(0.1)


def test_a_gallery_too_large_for_the_target_is_answered_with_what_can_be_promised(calibration):
    threshold = threshold_for_fpir(calibration, 0.01, faces=10_000)
    assert threshold.target == pytest.approx(1 - (1 - 1e-4) ** 10_000)


def test_an_empty_gallery_has_a_threshold_too(calibration):
    assert threshold_for_fpir(calibration, 0.01, faces=0).target == 0.01


def test_a_similarity_of_the_callers_own_tells_its_fmr_and_leaves_no_doubt(calibration):
    threshold = threshold_at(calibration, 0.4)
    assert threshold.target == pytest.approx(1e-2)
    assert threshold.uncertain_from == threshold.similarity == 0.4


def test_a_rate_that_reaches_zero_stays_at_zero(calibration):
    columns = block()
    columns["curve"]["fmr"][-1] = 0.0
    ended = Calibration.from_manifest(columns)
    assert rate_at(ended, ended.fmr_G, 1.0) == 0.0


@pytest.mark.parametrize(
    ("similarity", "decision"),
    [
        (None, "no_match"),
        (0.53, "no_match"),
        (0.55, "uncertain"),
        (0.5999, "uncertain"),
        (0.6001, "match"),
        (1.0, "match"),
    ],
)
def test_decisions_at_both_borders(calibration, similarity, decision):
    assert decide(similarity, threshold_for_fmr(calibration, 1e-3)) == decision


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b.pop("people"),
        lambda b: b["curve"].pop("fmr_low"),
        lambda b: b["curve"]["fmr"].pop(),
        lambda b: b["curve"]["similarity"].reverse(),
        lambda b: b["curve"]["fmr"].reverse(),
        lambda b: b["curve"]["fnmr"].__setitem__(0, float("nan")),
        lambda b: b["curve"].__setitem__("fmr", ["x"]),
        lambda b: b.__setitem__("smallest_fmr", 0),
        lambda b: b.__setitem__("curve", None),
        lambda b: b["tail"]["fmr"].pop(),
        lambda b: b["tail"].pop("fmr_low"),
        lambda b: b["tail"]["fmr"].reverse(),
        lambda b: b["tail"].__setitem__("similarity", []),
    ],
)
def test_a_broken_calibration_is_refused(damage):
    broken = tailed()
    damage(broken)
    with pytest.raises(ValueError, match="calibration"):
        Calibration.from_manifest(broken)


def test_quantiles_are_where_the_shares_of_comparisons_lie(calibration):
    """FNMR(s) = s is the share of the mated below s, FMR(s) = 10^(-5 s) of the others above."""
    told = quantiles(calibration)
    assert told["mated"] == pytest.approx({share: share for share in SHARES})
    others = {share: -math.log10(1 - share) / 5 for share in SHARES}
    assert told["non_mated"] == pytest.approx(others, abs=1e-9)


def populated() -> dict:
    """The calibration with strangers who match ten times as often, and others half as often."""

    def times(factor: float) -> dict:
        fmr = np.minimum(1, factor * 10 ** (-5 * GRID))
        columns = {"similarity": GRID, "fmr": fmr, "fmr_low": fmr / 2, "fmr_high": fmr * 2}
        curve = {name: column.tolist() for name, column in columns.items()}
        return {"crops": 30, "smallest_fmr": 1e-3, "curve": curve}

    return {**block(), "populations": {"alike": times(10), "unlike": times(0.5)}}


def test_a_population_has_its_own_threshold_and_the_fnmr_of_the_people_there():
    calibration = Calibration.from_manifest(json.loads(json.dumps(populated())))
    found = strictest(calibration, "alike", lambda of: threshold_for_fmr(of, 1e-2))
    assert (found.similarity, found.population) == (pytest.approx(0.6), "alike")
    assert (found.fnmr, found.fnmr_interval) == (pytest.approx(0.6), pytest.approx((0.3, 0.6)))
    own = strictest(calibration, OWN_PEOPLE, lambda of: threshold_for_fmr(of, 1e-2))
    assert (own.similarity, own.population) == (pytest.approx(0.4), OWN_PEOPLE)
    assert own == threshold_for_fmr(calibration, 1e-2)
    assert own.fnmr == pytest.approx(0.4)


def test_the_worst_population_has_the_highest_threshold_and_no_lower_one_than_the_people():
    calibration = Calibration.from_manifest(populated())
    worst = strictest(calibration, WORST, lambda of: threshold_for_fmr(of, 1e-2))
    assert worst == strictest(calibration, "alike", lambda of: threshold_for_fmr(of, 1e-2))
    kinder = populated()
    del kinder["populations"]["alike"]
    found = strictest(
        Calibration.from_manifest(kinder), WORST, lambda of: threshold_for_fmr(of, 1e-2)
    )
    assert (found.population, found.similarity) == (OWN_PEOPLE, pytest.approx(0.4))
    fpir = strictest(calibration, WORST, lambda of: threshold_for_fpir(of, 0.1, faces=3))
    assert (fpir.population, fpir.by) == ("alike", "target_fpir")


def test_a_similarity_of_the_callers_own_has_the_worst_populations_rate():
    calibration = Calibration.from_manifest(populated())
    worst = strictest(calibration, WORST, lambda of: threshold_at(of, 0.4))
    assert (worst.similarity, worst.population) == (0.4, "alike")
    assert worst.target == pytest.approx(0.1)


def test_a_population_that_was_not_measured_is_refused_by_name_with_those_there_are():
    calibration = Calibration.from_manifest(populated())
    with pytest.raises(PopulationUnknown) as refused:
        seen_by(calibration, "children")
    assert refused.value.known == [OWN_PEOPLE, "alike", "unlike", WORST]
    assert "the model's calibration has no population 'children'" in str(refused.value)
    with pytest.raises(PopulationUnknown, match=r"'staff' has no population 'worst'.*--strangers"):
        seen_by(Calibration.from_manifest(block(), name="staff"), WORST)


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("worst", {}, "cannot be named 'worst'"),
        ("calibration", {}, "cannot be named 'calibration'"),
        ("alike", {"crops": None}, "population 'alike'"),
        ("alike", {"smallest_fmr": 0}, "population 'alike': .*smallest_fmr"),
        ("alike", {"curve": {"similarity": [0, 1]}}, "population 'alike': .*lacks 'fmr'"),
        ("alike", {"curve": 7}, "population 'alike'"),
    ],
)
def test_a_population_that_is_none_is_refused_by_name(name, change, why):
    garbled = block() | {"populations": {name: populated()["populations"]["alike"] | change}}
    with pytest.raises(ValueError, match=why):
        Calibration.from_manifest(garbled)
    with pytest.raises(ValueError, match="no object"):
        Calibration.from_manifest(block() | {"populations": []})
