"""PAtt-Lite's recipes: what is learnt, in two stages or in one, and words where data are absent."""

import os
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.faces import drawn_expressions, write_ferplus, write_mobilenet
from tests.training.runs import differences, state_of
from training.__main__ import main
from training.checkpoint import rounds_of
from training.data.batches import Batch
from training.data.expressions import CLASSES, ExpressionSet
from training.expression import (
    RECIPES,
    begin,
    class_weights,
    distributions,
    network_of,
    parts,
    rate,
)
from training.loop import train
from training.machine import Machine
from training.recipes.expression import (
    Recipe,
    patt_lite,
    patt_lite_ferplus,
    patt_lite_raf_db,
    second_stage,
)

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is here")
CPU = Machine(torch.device("cpu"))
FACES, OTHERS = drawn_expressions(), drawn_expressions(2, "validation", seed=1)
SMALL = replace(patt_lite(), size=80, batch=8, steps=4, decay_steps=2, validate_every=2)
PAPER = replace(patt_lite_ferplus(), size=80, steps=2, validate_every=1)


def command(monkeypatch, tmp_path, *arguments) -> None:
    places = ["--runs", tmp_path / "runs", "--data", tmp_path / "data", "--threads", "1", "--plain"]
    words = ["python -m training", "train", *arguments, *places]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    main()


def labelled(labels, votes=None, splits=None, side=4) -> ExpressionSet:
    labels = np.array(labels)
    splits = np.array(splits if splits is not None else ["train"] * len(labels))
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None] + np.zeros(
        (side, side), np.uint8
    )
    votes = None if votes is None else np.array(votes)
    return ExpressionSet(pixels, labels, votes, CLASSES, splits, [str(i) for i in labels])


def test_votes_are_learnt_as_the_share_of_voters_a_class_has():
    votes = [[7, 3, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 2, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1]]
    faces = labelled([0, 4, 0], votes)
    found = distributions(replace(SMALL, least_votes=1), faces)
    wanted = [[v / sum(row) for v in row] for row in votes]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    counted = distributions(replace(SMALL, least_votes=2), faces)
    np.testing.assert_allclose(counted[:2], [wanted[0], np.eye(8)[4]], rtol=1e-6)
    np.testing.assert_allclose(counted[2], wanted[2])  # nothing would be left of it
    np.testing.assert_array_equal(distributions(PAPER, faces), np.eye(8)[[0, 4, 0]])
    with pytest.raises(ValueError, match="patt-lite learns votes, and ferplus has none"):
        distributions(SMALL, labelled([0]))


def test_balanced_class_weights_are_the_mean_count_over_the_classs_own():
    faces = labelled([0, 0, 0, 1, 2, 2])
    found = class_weights(faces, 1.0)
    np.testing.assert_allclose(found, [6 / (8 * 3), 6 / 8, 6 / (8 * 2), 0, 0, 0, 0, 0])
    np.testing.assert_allclose(class_weights(faces, 0.5) ** 2, found, rtol=1e-6)
    assert class_weights(faces, 0.0).tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_the_loss_is_the_weighted_cross_entropy_with_the_votes_an_image_at_a_time():
    recipe = replace(SMALL, balance=0.5)
    faces = drawn_expressions(3)
    faces.labels_N[:5] = 7
    run = begin(recipe, faces, OTHERS, CPU)
    run.learns["network"].eval()
    places = np.array([1, 9, 17])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 80, 80, 3), np.uint8)
    found = run.losses(Batch(pixels, places))["loss"].item()
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    log_q = run.learns["network"](inputs).double().log_softmax(1)
    weights, targets = class_weights(faces, 0.5), distributions(recipe, faces)[places]
    terms = [
        -sum(weights[k] * targets[i, k] * log_q[i, k].item() for k in range(8)) for i in range(3)
    ]
    assert found == pytest.approx(sum(terms) / 3, rel=1e-5)


def test_votes_of_drawn_faces_are_learnt(tmp_path):
    recipe = replace(
        SMALL, steps=20, decay_steps=5, validate_every=20, augmentation="none", average=0.0
    )
    run = begin(recipe, FACES, OTHERS, CPU)
    losses, told = [], run.losses
    run.losses = lambda batch: (losses.append(found := told(batch)), found)[1]
    progress = train(run, tmp_path, log_every=20)
    values = [found["loss"].item() for found in losses]
    assert np.mean(values[-4:]) < 0.9 * np.mean(values[:4])
    names = {"accuracy", "macro_f1", "score", "cross_entropy", "epoch_accuracy"}
    assert names <= progress.validations[0].keys()


@needs_compiler
def test_the_fused_step_gives_the_same_loss_and_gradient():
    found = []
    for step in ("plain", "fused"):
        run = begin(SMALL, FACES, OTHERS, Machine(torch.device("cpu"), step))
        torch.manual_seed(0)  # of what is dropped
        pixels = np.random.default_rng(0).integers(0, 256, (4, 80, 80, 3), np.uint8)
        loss = run.losses(Batch(pixels, np.arange(4)))["loss"]
        loss.backward()
        network = run.learns["network"]
        found.append((loss, network.classify.weight.grad, network.backbone.dw_3.weight.grad))
    for plain, fused in zip(*found, strict=True):
        assert (plain - fused).norm() < 1e-2 * plain.norm()


def test_stage_one_leaves_the_backbone_bit_for_bit_and_stage_two_its_norms(tmp_path):
    weights = write_mobilenet(tmp_path / "imagenet.npz")
    run = begin(PAPER, FACES, OTHERS, Machine(torch.device("cpu"), "fused"), weights)
    assert run.facts["step"] == "plain"  # the fused step would normalise by the batch
    before = {n: v.clone() for n, v in run.learns["network"].state_dict().items()}
    train(run, tmp_path / "one")
    after = run.learns["network"].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith("backbone")]
    assert {"classify.weight", "scale"} < changed

    second = run.then()
    train(second, tmp_path / "two", warm=tmp_path / "one" / "best.safetensors")
    moved = second.learns["network"].state_dict()
    tuned = {n for n in before if n.startswith("backbone") and not torch.equal(before[n], moved[n])}
    assert tuned
    assert not [name for name in tuned if "norm" in name]
    assert "backbone.conv.weight" not in tuned
    assert second.then is None
    assert [r["stage"] for r in rounds_of(tmp_path / "two" / "network.safetensors")] == [1, 2]


def test_a_plateau_lowers_the_rate_ends_stage_one_and_slows_stage_two():
    one = replace(patt_lite_ferplus(), faces=80, steps=1000)
    still = [0.5] * 9
    assert rate(one, 0, []) == pytest.approx(1e-3)
    assert rate(one, 30, still[:4]) == pytest.approx(1e-4)
    assert rate(one, 60, still[:6]) == 0
    no_end = replace(one, stop_after=0)
    assert rate(no_end, 500, [0.5] * 40) == pytest.approx(1e-6)
    two = replace(second_stage(one), steps=10_000)
    rates = [rate(two, 10 * epoch, [0.1 * n for n in range(epoch)]) for epoch in (0, 40, 80)]
    assert rates == pytest.approx([1e-5, 1e-5 / 1.5, 1e-5 / 2])
    assert rate(two, 210, [0.9] * 20) > 0
    assert rate(two, 210, [0.9] * 21) == 0


@pytest.mark.parametrize("recipe", [SMALL, replace(PAPER, steps=4, validate_every=2)])
def test_a_run_of_faces_that_was_stopped_goes_on_bit_for_bit(tmp_path, recipe):
    train(begin(recipe, FACES, OTHERS, CPU), tmp_path / "whole")
    stopping = begin(recipe, FACES, OTHERS, CPU)
    seen, told = [], stopping.losses

    def stopped(batch):
        seen.append(batch)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return told(batch)

    stopping.losses = stopped
    with pytest.raises(KeyboardInterrupt, match="goes on from step 3"):
        train(stopping, tmp_path / "stopped")
    train(begin(recipe, FACES, OTHERS, CPU), tmp_path / "stopped")
    assert not differences(state_of(tmp_path / "whole"), state_of(tmp_path / "stopped"))


def test_the_average_is_what_is_kept(tmp_path):
    from safetensors.torch import load_file

    run = begin(replace(SMALL, average=0.9), FACES, OTHERS, CPU)
    train(run, tmp_path)
    kept = load_file(tmp_path / "network.safetensors")
    average = run.learns["average"].module.state_dict()
    assert all(torch.equal(kept[name], average[name]) for name in average)
    assert not torch.equal(kept["classify.weight"], run.learns["network"].classify.weight)


def test_raf_db_without_a_validation_part_holds_out_a_tenth_of_each_class():
    labels = np.repeat(np.arange(4), 20)
    raf = labelled(np.tile(labels, 2), splits=["train"] * 80 + ["test"] * 80)
    learnt, chosen_by = parts(patt_lite_raf_db(), lambda rule: raf)
    assert np.bincount(learnt.labels_N).tolist() == [18] * 4
    assert np.bincount(chosen_by.labels_N).tolist() == [2] * 4
    both = {int(p[0, 0]) for s in (learnt, chosen_by) for p in s.pixels}
    assert both == set(range(80))


def test_ck_plus_is_tested_and_validated_on_people_of_other_folds():
    splits = np.array([f"fold {i % 10}" for i in range(30)])
    ck = labelled(np.zeros(30, int), splits=splits)
    recipe = replace(RECIPES["patt-lite-ck-plus"](), fold=9)
    learnt, chosen_by = parts(recipe, lambda rule: ck)
    assert set(chosen_by.split_N) == {"fold 0"}
    assert set(learnt.split_N) == {f"fold {i}" for i in range(1, 9)}
    with pytest.raises(ValueError, match="fold 10 is not one of 0 to 9"):
        parts(replace(recipe, fold=10), lambda rule: ck)


def test_validation_has_the_rule_that_the_recipe_says():
    by_rule = {
        "argmax8": labelled([0, 1, 2], splits=["train", "validation", "validation"]),
        "majority": labelled([0, 1], splits=["train", "validation"]),
    }
    learnt, chosen_by = parts(patt_lite(), by_rule.__getitem__)
    assert (len(learnt), len(chosen_by)) == (1, 1)
    assert len(parts(patt_lite_ferplus(), by_rule.__getitem__)[1]) == 2


def test_every_recipe_has_a_network_and_says_in_its_docstring_what_it_is():
    for name, recipe in RECIPES.items():
        assert recipe().name == name
        assert recipe.__doc__
        with torch.device("meta"):
            assert network_of(recipe())


def test_one_command_trains_both_stages_from_ferplus_own_files(monkeypatch, tmp_path, capsys):
    write_ferplus(tmp_path / "data" / "ferplus", FACES, OTHERS)
    write_mobilenet(tmp_path / "data" / "weights" / "mobilenet_v1_1.0_224.npz")
    settings = ["--set", "size=80", "steps=1", "last=3"]
    command(monkeypatch, tmp_path, "patt-lite-ferplus", *settings)
    rounds = rounds_of(tmp_path / "runs" / "patt-lite-ferplus-tuned" / "network.safetensors")
    assert [(r["name"], r["stage"], r["faces"]) for r in rounds] == [
        ("patt-lite-ferplus", 1, 32),
        ("patt-lite-ferplus-tuned", 2, 32),
    ]
    said = capsys.readouterr().out
    assert "found 32 faces for training and 16 for validation; FERPlus (28,558 faces" in said


def test_absent_data_end_the_command_with_2_found_and_expected(monkeypatch, tmp_path, capsys):
    for name, expected in (
        ("patt-lite", r"expected FERPlus (28,558 faces for training"),
        ("patt-lite-raf-db", r"expected RAF-DB's basic expressions (12,271 faces"),
    ):
        with pytest.raises(SystemExit) as ended:
            command(monkeypatch, tmp_path, name)
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert expected in said
        assert f"found nothing at {tmp_path / 'data'}" in said
    write_ferplus(tmp_path / "data" / "ferplus", FACES, OTHERS)
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path, "patt-lite")
    assert "expected ImageNet's MobileNetV1 (.npz); found nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--validation", "x"], "patt-lite takes no --validation"),
        (["--teacher", "x"], "patt-lite takes no --teacher"),
        (["--train", "a", "b"], "learns from one set, not from 2"),
        (["--set", "data=affectnet"], "data 'affectnet' is not one of ferplus, fer2013, raf-db"),
    ],
)
def test_what_a_recipe_does_not_take_is_refused(monkeypatch, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        command(monkeypatch, tmp_path, "patt-lite", *arguments)


def test_what_to_choose_by_is_a_figure_that_there_is():
    with pytest.raises(ValueError, match="best 'beauty' is not one of 'score', 'accuracy'"):
        begin(replace(SMALL, best="beauty"), FACES, OTHERS, CPU)


def test_the_papers_second_stage_is_what_its_notebook_says():
    second = second_stage(patt_lite_ferplus())
    assert isinstance(second, Recipe)
    wanted = {"stage": 2, "last": 49, "learning_rate": 1e-5, "balance": 0.0, "clip": 3.0}
    assert {name: getattr(second, name) for name in wanted} == wanted
