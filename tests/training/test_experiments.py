"""Experiments: Student's intervals against numbers worked out by hand, figures over people against
those of evaluation, and runs that are finished, broken off and gone on with."""

import json
import math
import os
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest

from tests.training.people import people
from tests.training.runs import Recipe, differences, small_run, state_of
from training.evaluate.identification import identification
from training.evaluate.verification import fnmr_at_fmr, verification
from training.experiments.page import machines, put
from training.experiments.people import figures
from training.experiments.runs import cost, gather, run_once
from training.experiments.seeds import STUDENT, Estimate, over_seeds, paired, percent

RECIPE = Recipe()


def test_a_mean_over_seeds_has_students_interval():
    found = over_seeds([1.0, 2.0, 3.0])  # s = 1: 4.303 / sqrt(3) = 2.4843
    assert (found.mean, found.count) == (2, 3)
    assert (found.low, found.high) == pytest.approx((-0.4843, 4.4843), abs=1e-4)


def test_a_paired_difference_is_of_the_seeds_that_both_have():
    before, after = {1: 1.0, 2: 2.0, 3: 4.0, 4: 9.0}, {3: 5.0, 2: 4.0, 1: 2.0, 5: 0.0}
    found = paired(before, after)  # 1, 2, 1: mean 4/3, s = 0.57735
    half = 4.303 * 0.57735 / math.sqrt(3)
    assert asdict(found) == pytest.approx(
        {"mean": 4 / 3, "low": 4 / 3 - half, "high": 4 / 3 + half, "count": 3}, abs=1e-5
    )


def test_pairing_takes_out_what_a_seed_gives_to_both_sides():
    before = {1: 0.1, 2: 0.5, 3: 0.9}
    after = {seed: value + 0.01 for seed, value in before.items()}
    found = paired(before, after)
    assert found.high - found.low < 1e-9
    assert over_seeds(list(after.values())).low < 0


@pytest.mark.parametrize("freedom", [1, 2, 5, 20])
def test_students_quantiles_hold_95_percent(freedom):
    x = np.linspace(-STUDENT[freedom - 1], STUDENT[freedom - 1], 200_001)
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    assert np.trapezoid(density, x) == pytest.approx(0.95, abs=1e-4)


def test_one_seed_has_a_mean_and_no_interval():
    found = over_seeds([0.25])
    assert found.mean == 0.25
    assert math.isnan(found.low)
    assert percent(found) == "25.00 [?, ?]"
    assert percent(Estimate(0.0125, -0.01, 0.035, 3), signed=True) == "+1.25 [-1.00, +3.50]"


@pytest.mark.parametrize("count", [0, 22])
def test_no_seeds_and_too_many_are_refused(count):
    with pytest.raises(ValueError, match=rf"{count} seeds: from 1 to 21"):
        over_seeds([0.0] * count)


def test_figures_over_people_are_those_of_the_evaluation():
    embeddings, labels = people(40, 12, spread=1.5)
    found = figures(embeddings, labels)
    point, known = (
        {name: values[0] for name, values in found.items()},
        verification(embeddings, labels),
    )
    assert point["tar_at_far_1e3"] == pytest.approx(known.tar_at_far_1e3, abs=1e-3)
    assert point["equal_error_rate"] == pytest.approx(known.equal_error_rate, abs=1e-3)
    nobody = np.zeros((0, 32), np.float32), np.zeros(0, np.int64)
    [gallery] = identification(embeddings, labels, *nobody, sizes=(), faces=1)
    assert point["rank_1"] == pytest.approx(gallery["rank_1"])
    low, high = np.quantile(found["rank_1"][1:], (0.025, 0.975))
    assert (low, high) == pytest.approx((gallery["rank_1_low"], gallery["rank_1_high"]))
    [operating] = fnmr_at_fmr(embeddings, labels, (1e-3,))
    low, high = np.quantile(1 - found["tar_at_far_1e3"][1:], (0.025, 0.975))
    assert (low, high) == pytest.approx((operating.fnmr_low, operating.fnmr_high), abs=5e-3)


def test_two_networks_meet_the_same_draws_of_people():
    embeddings, labels = people(20, 6, spread=2.0)
    once, again = figures(embeddings, labels), figures(embeddings, labels)
    for name, values in once.items():
        # Another draw of people is percents away; two sums of the same need only be near.
        np.testing.assert_allclose(values, again[name], atol=1e-6)
        assert np.ptp(values) > 0


def test_people_who_cannot_be_compared_are_refused():
    embeddings, _ = people(4, 1, spread=1.0)
    with pytest.raises(ValueError, match="pairs of one person and pairs of two"):
        figures(embeddings, np.arange(4))


def counted(begun: list[int], **more):
    """run_once's `begin` and `measure` for the small run; begun grows with each Run made."""

    def begin(recipe):
        begun.append(recipe.seed)
        return small_run(recipe, **more)

    return begin, lambda run, folder: {"figures": {"weights": run.recipe.seed / 10}}


def test_a_finished_run_is_passed_over_and_its_figures_given(tmp_path):
    begun = []
    first = run_once(RECIPE, tmp_path / "a", *counted(begun))
    assert run_once(RECIPE, tmp_path / "a", *counted(begun)) == first
    assert begun == [RECIPE.seed]
    assert first["figures"] == {"weights": 0.3}
    assert first["recipe"] == asdict(RECIPE)
    assert first["hardware"]["cores"] >= 1
    assert gather(tmp_path) == [first]


def test_a_run_that_was_broken_off_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    stopping = {"before": lambda step: step == 2 and os.kill(os.getpid(), signal.SIGTERM)}
    with pytest.raises(KeyboardInterrupt):
        run_once(RECIPE, tmp_path / "broken", *counted([], **stopping))
    assert not gather(tmp_path)
    begun = []
    run_once(RECIPE, tmp_path / "broken", *counted(begun))
    run_once(RECIPE, tmp_path / "whole", *counted(begun))
    states = (state_of(tmp_path / name) for name in ("broken", "whole"))
    assert not differences(*states)


def test_a_run_that_ended_before_it_was_measured_is_measured_without_another_step(tmp_path):
    run_once(RECIPE, tmp_path, *counted([]))
    (tmp_path / "figures.json").unlink()
    steps = []
    run_once(RECIPE, tmp_path, *counted([], before=steps.append))
    assert not steps
    assert (tmp_path / "figures.json").exists()


def test_figures_of_another_recipe_are_never_taken_for_ours(tmp_path):
    run_once(RECIPE, tmp_path, *counted([]))
    other = replace(RECIPE, learning_rate=1.0)
    with pytest.raises(ValueError, match=r"figures\.json is of another recipe: learning_rate 0.05"):
        run_once(other, tmp_path, *counted([]))


def test_a_runs_seconds_are_the_sum_over_its_log(tmp_path):
    rows = [
        {"step": 0, "round": {"cpu": "x", "cores": 2, "threads": 1, "recipe": {}}},
        {"step": 50, "loss": 1.0, "images_a_s": 100.0},
        {"step": 60, "accuracy": 0.5},
        {"step": 80, "loss": 1.0, "images_a_s": 40.0},
        {"step": 100, "loss": 1.0, "images_a_s": 20.0},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = cost(tmp_path, batch=10)
    assert found["seconds"] == 50 * 10 / 100 + 30 * 10 / 40 + 20 * 10 / 20
    assert found["images_a_s"] == 40
    assert machines([found, found]) == "cpu x; cores 2; threads 1"


def test_a_pages_facts_are_json_without_nan(tmp_path):
    put(tmp_path / "docs" / "a.md", "# A\n", {"mean": 1.0, "low": [float("nan"), {"x": None}]})
    assert (tmp_path / "docs" / "a.md").read_text() == "# A\n"
    kept = json.loads((tmp_path / "docs" / "a.json").read_text())
    assert kept == {"mean": 1.0, "low": [None, {"x": None}]}
