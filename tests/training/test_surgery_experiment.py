"""HSANet's experiment: who is seen before and after, what is made of the epochs, and its page."""

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from tests.training.crops import drawn_crops
from training.__main__ import main
from training.data.surgery import operate, surgery_of
from training.experiments import surgery
from training.experiments.runs import gather
from training.experiments.surgery import (
    DRAWN_BY,
    KNOWN_AFTER,
    NETWORKS,
    Photographs,
    most_pictured,
    of_epochs,
    photographs,
    recipe_of_network,
    run_network,
    sheet,
)
from training.experiments.surgery_page import FIGURES, write_page
from training.machine import Machine
from training.verbs import surgery as verb

CPU = Machine(torch.device("cpu"))
PEOPLE = drawn_crops(people=3, each=10)


@pytest.fixture(name="parts")
def _parts() -> Photographs:
    return photographs(PEOPLE, seed=1)


def finished(network: str, seed: int, accuracy: float) -> dict:
    """A run's figures, made up."""
    epochs = [{"epoch_accuracy": accuracy, "accuracy": accuracy} for _ in range(2)]
    return {
        "network": network,
        "recipe": asdict(recipe_of_network(network, seed)),
        "hardware": {"cpu": "a cpu"},
        "seconds": 900.0,
        "epochs": epochs,
        "figures": dict.fromkeys(FIGURES, accuracy),
        "parameters": 1234567,
        "photographs": {"learnt": 754, "validation": 182},
    }


def test_the_people_are_those_with_the_most_photographs_by_name_where_as_many():
    crops = drawn_crops(people=4, each=6)
    kept = np.delete(np.arange(24), [6, 7])  # p1 has four
    fewer = replace(
        crops,
        pixels_NHWC=crops.pixels_NHWC[kept],
        paths=[crops.paths[i] for i in kept],
        labels_N=crops.labels_N[kept],
    )
    found = most_pictured(fewer, people=2, each=5)
    assert found.people == ["p0", "p2"]
    assert np.bincount(found.labels_N).tolist() == [5, 5]
    assert {path.split("/")[0] for path in found.paths} == {"p0", "p2"}
    again = most_pictured(fewer, people=2, each=5)
    assert found.paths == again.paths
    with pytest.raises(ValueError, match="4 people with 5 crops or more each are needed"):
        most_pictured(fewer, people=4, each=5)


def test_the_validation_is_all_after_surgery_and_none_of_it_is_learnt_from(parts):
    assert not set(parts.learnt.paths) & set(parts.after.paths)
    assert np.bincount(parts.after.labels_N).tolist() == [2, 2, 2]
    assert parts.after.paths == parts.before.paths
    where = {path: i for i, path in enumerate(PEOPLE.paths)}
    for i, path in enumerate(parts.after.paths):
        untouched = PEOPLE.pixels_NHWC[where[path]]
        np.testing.assert_array_equal(parts.before.pixels_NHWC[i], untouched)
        theirs = surgery_of(int(parts.after.labels_N[i]), seed=DRAWN_BY)
        np.testing.assert_array_equal(parts.after.pixels_NHWC[i], operate(untouched, theirs))


def test_few_of_a_persons_photographs_to_learn_from_are_after_surgery(parts):
    where = {path: i for i, path in enumerate(PEOPLE.paths)}
    changed = np.zeros(3, int)
    for path, label, crop in zip(
        parts.learnt.paths, parts.learnt.labels_N, parts.learnt.pixels_NHWC, strict=True
    ):
        changed[label] += (crop != PEOPLE.pixels_NHWC[where[path]]).any()
    assert changed.tolist() == [KNOWN_AFTER] * 3


def test_a_seed_divides_and_another_divides_differently(parts):
    again, other = photographs(PEOPLE, seed=1), photographs(PEOPLE, seed=2)
    np.testing.assert_array_equal(parts.learnt.pixels_NHWC, again.learnt.pixels_NHWC)
    assert parts.after.paths == again.after.paths
    assert parts.after.paths != other.after.paths


def test_the_networks_differ_in_nothing_but_what_they_are():
    recipes = [asdict(recipe_of_network(name, seed=1)) for name in NETWORKS]
    differing = {name for name in recipes[0] if len({str(r[name]) for r in recipes}) > 1}
    assert differing == {"name", "network", "identity"}
    assert recipes[0] | {"learning_rate": 0.005, "batch": 4, "epochs": 50} == recipes[0]


def test_epochs_are_summed_up_as_the_paper_does_and_f1_of_the_best_epoch_apart():
    rows = [(0.5, 0.25, 0.2), (0.75, 0.75, 0.7), (1.0, 0.5, 0.9)]
    epochs = [
        {"epoch_accuracy": a, "accuracy": b, "macro_f1": c, "weighted_f1": c / 2}
        for a, b, c in rows
    ]
    assert of_epochs(epochs) == pytest.approx(
        {
            "training_mean": 0.75,
            "training_max": 1.0,
            "validation_mean": 0.5,
            "validation_max": 0.75,
            "validation_last": 0.5,
            "macro_f1_mean": 0.6,
            "macro_f1_best": 0.7,
            "weighted_f1_mean": 0.3,
            "weighted_f1_best": 0.35,
        }
    )


def test_a_network_is_trained_measured_and_not_trained_again(monkeypatch, tmp_path):
    monkeypatch.setattr(surgery, "WIDTH", 8)
    run_network("HSANet(x)", 1, 2, PEOPLE, tmp_path, CPU)
    [found] = gather(tmp_path)
    assert found["network"] == "HSANet(x)"
    assert len(found["epochs"]) == 2
    assert set(found["figures"]) == set(FIGURES)
    assert found["photographs"] == {"learnt": 24, "validation": 6}
    log = tmp_path / "hsanet-x-1" / "log.jsonl"
    written = log.stat().st_mtime_ns
    run_network("HSANet(x)", 1, 2, PEOPLE, tmp_path, CPU)
    assert log.stat().st_mtime_ns == written


def test_the_page_has_the_papers_figures_in_a_column_of_their_own(tmp_path):
    runs = [finished("ResNet50", seed, a) for seed, a in ((1, 0.5), (2, 0.6), (3, 0.7))]
    runs += [finished("HSANet(3x3)", seed, a) for seed, a in ((1, 0.6), (2, 0.7), (3, 0.8))]
    write_page(runs, 3, tmp_path / "surgery.md")
    text = (tmp_path / "surgery.md").read_text()
    assert "6 of 9 runs are finished" in text
    # s = 0.1: 4.303 x 10 / sqrt(3) = 24.84
    assert (
        "| validation accuracy, mean over epochs | ResNet50 | 3 | 60.00 [35.16, 84.84] | 66.8275 |"
        in text
    )
    assert "| validation accuracy, mean over epochs | HSANet(x) | 0 |  | 76.0003 |" in text
    assert "HSANet(3x3) in place of ResNet50: validation accuracy, mean over epochs by" in text
    assert "+10.00 [+10.00, +10.00] points, 3 seeds: no difference is shown here." in text
    assert "| ResNet50 | 1,234,567 | 15.0 |" in text
    facts = json.loads((tmp_path / "surgery.json").read_text())
    assert (facts["finished"], facts["planned"]) == (6, 9)
    assert facts["differences"][0]["validation_last"]["mean"] == pytest.approx(0.1)
    assert (tmp_path / "surgery.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no run of the surgery experiment is finished"):
        write_page([], 3, tmp_path / "none.md")


def test_the_sheet_shows_each_photograph_before_and_after():
    found = sheet(PEOPLE, rows=2)
    assert found.shape == (2 * 112, 8 * 112, 3)
    first = PEOPLE.pixels_NHWC[0]
    np.testing.assert_array_equal(found[:112, :112], first)
    np.testing.assert_array_equal(
        found[:112, 112:224], operate(first, surgery_of(0, seed=DRAWN_BY))
    )


def test_one_command_does_what_is_missing_and_writes_the_page(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(surgery, "WIDTH", 8)
    monkeypatch.setattr(verb, "NETWORKS", {"ResNet50": NETWORKS["ResNet50"]})
    monkeypatch.setattr(verb, "read_people", lambda data, cache: PEOPLE)
    words = ["python -m training", "surgery", "--seeds", "1", "--epochs", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--runs", str(tmp_path)])
    main()
    assert "run 1 of 1: resnet50-closed-1" in capsys.readouterr().out
    page = tmp_path / "surgery" / "epochs-1" / "surgery.md"
    assert "1 of 3 runs are finished" in page.read_text()
    page.unlink()
    main()
    assert "run 1" not in capsys.readouterr().out
    assert page.exists()
