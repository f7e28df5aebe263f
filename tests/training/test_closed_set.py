"""Closed sets: HSANet's recipe on people of one's own."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.crops import drawn_crops, png
from training.__main__ import main
from training.checkpoint import rounds_of
from training.closed_set import RECIPES, begin, divided, f1_figures, network_of
from training.loop import train
from training.machine import Machine
from training.recipes.closed_set import hsanet_3x3, hsanet_x

CPU = Machine(torch.device("cpu"))
CROPS = drawn_crops(people=3, each=5, side=64)
SMALL = replace(hsanet_3x3(), size=64, width=8, steps=4, validate_every=2)


def command(monkeypatch, tmp_path, *arguments) -> None:
    places = ["--runs", tmp_path / "runs", "--threads", "1", "--plain"]
    words = ["python -m training", "train", *arguments, *places]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    main()


def write_people(folder) -> None:
    for path, pixels in zip(CROPS.paths, CROPS.pixels_NHWC, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(png(pixels))


def test_the_papers_settings_are_the_recipes_and_the_same_for_all_three():
    for name, recipe in RECIPES.items():
        found = recipe()
        assert (found.name, bool(recipe.__doc__)) == (name, True)
        assert (found.learning_rate, found.batch, found.epochs) == (0.005, 4, 50)
        assert (found.size, found.share, found.alpha) == (224, 0.8, 0.25)
    with torch.device("meta"):
        sizes = {
            name: sum(p.numel() for p in network_of(recipe(), 26).parameters())
            for name, recipe in RECIPES.items()
        }
    assert sizes == {
        "resnet50-closed": 23_561_306,
        "hsanet-x": 18_875_994,
        "hsanet-3x3": 25_956_954,
    }


def test_four_fifths_of_each_person_are_learnt_from_by_the_seed():
    crops = drawn_crops(people=4, each=10, side=8)
    crops.labels_N[:2] = -1  # nobody's
    learnt, validation = divided(crops, 0.8, seed=1)
    assert np.bincount(learnt.labels_N).tolist() == [6, 8, 8, 8]
    assert np.bincount(validation.labels_N).tolist() == [2, 2, 2, 2]
    assert not {*learnt.paths, *validation.paths} & {*crops.paths[:2]}
    assert not {*learnt.paths} & {*validation.paths}
    assert divided(crops, 0.8, seed=1)[1].paths == validation.paths
    assert divided(crops, 0.8, seed=2)[1].paths != validation.paths


@pytest.mark.parametrize("name", RECIPES)
def test_people_of_a_small_set_are_learnt(tmp_path, name):
    learnt, validation = divided(CROPS, 0.8, seed=1)
    recipe = replace(
        RECIPES[name](),
        size=64,
        width=8,
        steps=25,
        validate_every=25,
        batch=12,
        augmentation="none",
        learning_rate=0.02,
    )
    run = begin(recipe, learnt, validation, CPU)
    losses, told = [], run.losses
    run.losses = lambda batch: (losses.append(found := told(batch)), found)[1]
    progress = train(run, tmp_path, log_every=25)
    values = [found["loss"].item() for found in losses]
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])
    names = {"accuracy", "macro_f1", "weighted_f1", "cross_entropy", "epoch_accuracy"}
    assert names <= progress.validations[0].keys()
    [round_] = rounds_of(tmp_path / "best.safetensors")
    assert (round_["crops"], round_["people"]) == (12, 3)


def test_f1_is_that_of_each_person_averaged_over_people_and_over_crops():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    answers = np.array([0, 0, 1, 2, 1, 0, 2])
    each = []
    for person in range(3):
        right = sum(a == t == person for a, t in zip(answers, labels, strict=True))
        precision, recall = right / (answers == person).sum(), right / (labels == person).sum()
        each.append(2 * precision * recall / (precision + recall))
    found = f1_figures(answers, labels, 4)
    assert found["accuracy"] == pytest.approx(4 / 7)
    assert found["macro_f1"] == pytest.approx(np.mean(each))
    assert found["weighted_f1"] == pytest.approx(np.dot(each, [4, 2, 1]) / 7)


def test_sets_of_other_people_and_crops_of_nobody_are_refused():
    other = drawn_crops(people=4, each=2, side=64)
    with pytest.raises(ValueError, match="training and validation differ in people: p3"):
        begin(SMALL, CROPS, other, CPU)
    nobody = drawn_crops(people=3, each=2, side=64)
    nobody.labels_N[0] = -1
    with pytest.raises(ValueError, match="every crop needs its person"):
        begin(SMALL, CROPS, nobody, CPU)
    with pytest.raises(ValueError, match="network 'vgg' is not one of 'resnet50', 'hsanet'"):
        begin(replace(SMALL, network="vgg"), CROPS, CROPS, CPU)


def test_one_command_learns_a_folder_of_people_divided_or_with_its_own_validation(
    monkeypatch, tmp_path, capsys
):
    write_people(tmp_path / "people")
    settings = ["--set", "size=64", "width=8", "steps=1"]
    command(monkeypatch, tmp_path, "hsanet-x", "--train", tmp_path / "people", *settings)
    assert "hsanet-x: found 12 crops of 3 people for training and 3" in capsys.readouterr().out
    both = ["--train", tmp_path / "people", "--validation", tmp_path / "people", "name=both"]
    command(monkeypatch, tmp_path, "hsanet-x", *both[:4], *settings, both[4])
    assert "both: found 15 crops of 3 people for training and 15" in capsys.readouterr().out
    assert rounds_of(tmp_path / "runs" / "both" / "network.safetensors")[0]["alpha"] == 0.25


def test_without_people_the_command_ends_with_2_found_and_expected(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, tmp_path, "resnet50-closed")
    assert ended.value.code == 2
    assert "expected a folder a person (the paper has 26 people" in (
        said := capsys.readouterr().err
    )
    assert "found no --train" in said
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path, hsanet_x().name, "--train", tmp_path / "nobody")
    assert f"found nothing at {tmp_path / 'nobody'}" in capsys.readouterr().err


def test_a_closed_set_of_one_person_is_refused():
    alone = drawn_crops(people=1, each=4)
    with pytest.raises(ValueError, match=r"1 \(p0\): classification needs at least two people"):
        begin(SMALL, alone, alone, CPU)
