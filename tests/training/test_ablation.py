"""The ablation: arms that differ in nothing but what is compared, and a page of what is done."""

import json
import re
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from tests.training.crops import drawn_crops
from training.__main__ import main
from training.evaluate.pairs import Pairs
from training.evaluate.pairsets import PairSet
from training.experiments import ablation
from training.experiments.ablation import Data, arms, halved, recipe_of_arm, run_arm, smaller
from training.experiments.ablation_page import verdict, write_page
from training.experiments.people import MEASURES
from training.experiments.runs import gather
from training.machine import Machine
from training.recognition import begin
from training.verbs import ablation as verb

CPU = Machine(torch.device("cpu"))
CROPS = drawn_crops(side=56)
PHOTOGRAPHS = [(f"p{i // 4}", i % 4 + 1) for i in range(12)]
PAIRS = Pairs(
    PHOTOGRAPHS,
    np.array([0, 4, 0, 4, 1, 5, 1, 5]),
    np.array([1, 5, 4, 8, 2, 6, 8, 9]),
    np.array([True, True, False, False] * 2),
    np.array([0, 0, 0, 0, 1, 1, 1, 1]),
)
DATA = Data(CROPS, CROPS, CROPS, PairSet("LFW", CROPS.pixels_NHWC, PAIRS))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    """Four crops a step in place of 128."""
    real = ablation.recipe_of_arm
    small = lambda *arguments: replace(real(*arguments), batch=4)  # noqa: E731
    monkeypatch.setattr(ablation, "recipe_of_arm", small)


def finished(attention: str, loss: str, seed: int, tar: float) -> dict:
    """A run's figures, made up; TAR over people swings by one point in the bootstrap."""
    rounds = [tar, *(tar + np.linspace(-0.01, 0.01, 40))]
    names = ("lfw_accuracy", "lfw_tar_at_far_1e3", "validation_tar_at_far_1e3")
    return {
        "recipe": asdict(recipe_of_arm((attention, loss), seed)),
        "hardware": {"cpu": "a cpu", "cores": 2, "gpu": None},
        "seconds": 600.0,
        "images_a_s": 300.0,
        "figures": dict.fromkeys((*MEASURES, *names), tar),
        "rounds": dict.fromkeys(MEASURES, rounds),
    }


def test_five_arms_answer_the_question_and_nine_are_all():
    assert arms() == [
        ("none", "curricular"),
        ("eca", "curricular"),
        ("esca", "softmax"),
        ("esca", "arcface"),
        ("esca", "curricular"),
    ]
    assert len(arms(full=True)) == 9


def test_arms_differ_in_nothing_but_attention_loss_and_name():
    recipes = [asdict(recipe_of_arm(arm, seed=2)) for arm in arms(full=True)]
    differing = {name for name in recipes[0] if len({str(r[name]) for r in recipes}) > 1}
    assert differing == {"name", "attention", "loss"}


def test_a_seed_gives_every_arm_the_same_batches_and_an_attention_the_same_first_weights():
    runs = [
        begin(replace(recipe_of_arm(arm, 2), batch=4), CROPS, None, None, CPU)
        for arm in (("none", "curricular"), ("none", "softmax"), ("esca", "softmax"))
    ]
    seen = [[batch.pixels_NHWC for _, batch in run.batches(0, 3)] for run in runs]
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])
    one, other = (run.learns["network"].state_dict() for run in runs[:2])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_crops_are_made_smaller_by_the_mean_over_area():
    crops = drawn_crops(people=1, each=2)
    means = crops.pixels_NHWC.reshape(2, 56, 2, 56, 2, 3).mean((2, 4))
    assert np.abs(halved(crops.pixels_NHWC) - means).max() <= 0.5
    assert smaller(crops).people == crops.people


def test_an_arm_is_trained_measured_and_not_trained_again(tmp_path):
    run_arm(("esca", "curricular"), 1, 2, DATA, tmp_path, CPU)
    [found] = gather(tmp_path)
    assert found["recipe"]["steps"] == 2
    assert set(found["figures"]) >= {*MEASURES, "lfw_accuracy", "validation_tar_at_far_1e3"}
    assert all(len(found["rounds"][name]) == 401 for name in MEASURES)
    log = tmp_path / "esca-curricular-1" / "log.jsonl"
    written = log.stat().st_mtime_ns
    run_arm(("esca", "curricular"), 1, 2, DATA, tmp_path, CPU)
    assert log.stat().st_mtime_ns == written


def test_the_page_gives_means_intervals_and_paired_differences(tmp_path):
    none = [finished("none", "curricular", seed, tar) for seed, tar in ((1, 0.1), (2, 0.3))]
    esca = [finished("esca", "curricular", seed, tar) for seed, tar in ((1, 0.2), (2, 0.4))]
    write_page([*none, *esca], arms(), 3, tmp_path / "ablation.md")
    text = (tmp_path / "ablation.md").read_text()
    assert "4 of 15 runs are finished" in text
    half = 12.706 * 0.1  # of 0.1 and 0.3: s / sqrt(2) = 0.1
    row = next(line for line in text.splitlines() if line.startswith("| no attention | Curric"))
    assert f"| 2 | 20.00 [{20 - 100 * half:.2f}, {20 + 100 * half:.2f}] |" in row
    assert row.endswith("| 10.0 |")
    assert "| no attention -> ESCA | CurricularFace | 2 | +10.00 [+10.00, +10.00]" in text
    assert "| ECA | CurricularFace | 0 |  |" in text
    assert re.search(r"- ESCA in place of no attention \(with CurricularFace\): .*it helps", text)
    assert "a cpu; cores 2" in text.replace("cpu a cpu", "a cpu")
    facts = json.loads((tmp_path / "ablation.json").read_text())
    assert (facts["finished"], facts["planned"]) == (4, 15)
    assert facts["says"] == [line[2:] for line in text.splitlines() if line.startswith("- ESCA")]
    assert facts["differences"][0]["tar_at_far_1e3"]["mean"] == pytest.approx(0.1)
    assert (tmp_path / "ablation.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("seeds", "people", "said"),
    [
        ((0.01, 0.02), (0.005, 0.03), "it helps here"),
        ((-0.02, -0.01), (-0.03, -0.005), "it hurts here"),
        ((0.01, 0.02), (-0.01, 0.03), "no difference is shown here"),
        ((-0.01, 0.02), (0.01, 0.03), "no difference is shown here"),
        ((float("nan"), float("nan")), (0.01, 0.03), "no difference is shown here"),
    ],
)
def test_a_change_helps_only_where_seeds_and_people_agree(seeds, people, said):
    told = dict(zip(("low", "high", "people_low", "people_high"), (*seeds, *people), strict=True))
    assert verdict({"tar_at_far_1e3": told}) == said


def test_an_arm_that_has_not_learnt_is_compared_with_no_other(tmp_path):
    softmax = [finished("esca", "softmax", seed, tar) for seed, tar in ((1, 0.2), (2, 0.22))]
    arcface = [finished("esca", "arcface", seed, tar) for seed, tar in ((1, 0.4), (2, 0.42))]
    write_page([*softmax, *arcface], arms(), 2, tmp_path / "ablation.md")
    [said] = json.loads((tmp_path / "ablation.json").read_text())["says"]
    assert said.endswith("no claim, as ESCA with ArcFace (EER 41.00 %) has hardly learnt.")


def test_a_page_whose_runs_are_gone_says_what_the_rules_of_now_allow(monkeypatch, tmp_path):
    page = tmp_path / "ablation.md"
    runs = [finished("none", "curricular", 1, 0.1), finished("esca", "curricular", 1, 0.2)]
    write_page(runs, arms(), 3, page)
    whole, facts = page.read_text(), json.loads(page.with_suffix(".json").read_text())
    [told] = facts["says"]
    page.write_text(whole.replace(told, "It is better.").replace("claims nothing", "is enough"))
    page.with_suffix(".json").write_text(json.dumps(facts | {"says": ["It is better."]}))
    words = ["python -m training", "ablation", "--page", "--out", str(page)]
    monkeypatch.setattr(sys, "argv", [*words, "--runs", str(tmp_path / "none")])
    main()
    assert page.read_text() == whole
    assert json.loads(page.with_suffix(".json").read_text()) == facts
    page.unlink()
    with pytest.raises(SystemExit) as ended:
        main()
    assert f"{page} is not there with its JSON" in str(ended.value)


def test_without_a_finished_run_there_is_no_page(tmp_path):
    with pytest.raises(ValueError, match="no run of the ablation is finished"):
        write_page([], arms(), 3, tmp_path / "ablation.md")


def test_one_command_does_what_is_missing_and_writes_the_page(monkeypatch, tmp_path, capsys):
    words = ["python -m training", "ablation", "--seeds", "1", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--runs", str(tmp_path), "--threads", "1"])
    monkeypatch.setattr(verb, "read_data", lambda data, cache: DATA)
    monkeypatch.setattr(verb, "this_machine", lambda device: CPU)
    monkeypatch.setattr(verb, "arms", lambda full: [("none", "softmax"), ("eca", "softmax")])
    run_arm(("eca", "softmax"), 1, 1, DATA, tmp_path / "ablation" / "steps-1", CPU)
    main()
    said = capsys.readouterr().out
    assert "run 1 of 1: none-softmax-1" in said
    page = tmp_path / "ablation" / "steps-1" / "ablation.md"
    assert "2 of 2 runs are finished" in page.read_text()


def test_absent_data_end_the_command_with_2(monkeypatch, tmp_path, capsys):
    places = ["--data", str(tmp_path / "nowhere"), "--runs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["python -m training", "ablation", *places])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "found nothing at" in capsys.readouterr().err
