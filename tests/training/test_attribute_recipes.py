"""MZTS's recipes: the ablation's switches, mixup, the stem, CelebA by its own partitions."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.training.faces import drawn_attributes, write_celeba, write_mobilenet
from tests.training.runs import differences, state_of
from training.__main__ import main
from training.attributes import RECIPES, begin, figures, mixed, network_of
from training.checkpoint import rounds_of
from training.data.batches import Batch
from training.loop import train
from training.machine import Machine
from training.recipes.attributes import mzts, mzts_hybrid, mzts_plain, mzts_zones

CPU = Machine(torch.device("cpu"))
FACES, OTHERS = drawn_attributes(), drawn_attributes(8, "validation", seed=1)
TINY = {
    "size": (64, 48),
    "depth": 3,
    "batch": 8,
    "steps": 3,
    "decay_steps": 2,
    "warmup_epochs": 0.0,
}
SMALL = replace(mzts(), **TINY)


def command(monkeypatch, tmp_path, *arguments) -> None:
    places = ["--runs", tmp_path / "runs", "--data", tmp_path / "data", "--threads", "1", "--plain"]
    words = ["python -m training", "train", *arguments, *places]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    main()


def test_the_ablation_takes_away_distillation_and_then_the_zones():
    full, zones, plain = mzts(), mzts_zones(), mzts_plain()
    assert (full.zones, full.supervise, full.beta, full.lam) == (3, True, 0.5, 0.1)
    assert zones == replace(full, name="mzts-zones", supervise=False, beta=0.0, lam=0.0)
    assert plain == replace(zones, name="mzts-plain", zones=1)


def test_every_recipe_has_a_network_and_says_in_its_docstring_what_it_is():
    for name, recipe in RECIPES.items():
        assert recipe().name == name
        assert recipe.__doc__
        with torch.device("meta"):
            assert network_of(recipe())


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"zones": 1}, {"network", "average"}),
        ({"beta": 0.0, "lam": 0.0, "supervise": False}, {"network", "average"}),
        ({"teacher": "attn"}, {"network", "average", "projections"}),
    ],
)
def test_a_term_that_is_switched_off_leaves_the_last_zones_cross_entropy(change, parts):
    recipe = replace(SMALL, mixup=0.0, **change)
    run = begin(recipe, FACES, OTHERS, CPU)
    assert set(run.learns) == parts
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    found = run.losses(Batch(pixels, np.arange(2)))
    run.learns["network"].eval()
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    logits = run.learns["network"](inputs)
    labels = torch.from_numpy(FACES.labels_NA[:2]).float()
    last = F.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(found["train_cross_entropy"], last.detach())
    if "projections" in parts:
        assert found["loss"] > last
    else:
        torch.testing.assert_close(found["loss"], last)


def test_attributes_of_drawn_faces_are_learnt_from_the_labels(tmp_path):
    recipe = replace(
        SMALL, steps=25, decay_steps=0, augmentation="none", mixup=0.0, batch=16, average=0.0
    )
    run = begin(recipe, FACES, OTHERS, CPU)
    losses, told = [], run.losses
    run.losses = lambda batch: (losses.append(found := told(batch)), found)[1]
    train(run, tmp_path, log_every=40)
    values = [found["loss"].item() for found in losses]
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])


def test_the_stem_begins_with_imagenets_weights_and_learns(tmp_path):
    weights = write_mobilenet(tmp_path / "imagenet.npz")
    recipe = replace(mzts_hybrid(), **TINY)
    run = begin(recipe, FACES, OTHERS, CPU, weights)
    first = run.learns["network"].embed.backbone.conv.weight
    with np.load(weights) as arrays:
        wanted = torch.from_numpy(arrays["Conv2d_0/weights"].astype(np.float32))
    before = first.detach().clone()
    torch.testing.assert_close(before, wanted.permute(3, 2, 0, 1))
    train(run, tmp_path / "run")
    assert not torch.equal(first, before)
    with pytest.raises(ValueError, match="patch 8: MobileNet's stem gives tokens of 16"):
        network_of(replace(recipe, patch=8))
    with pytest.raises(
        ValueError, match="stem 'convolutions' is not one of 'patches', 'mobilenet'"
    ):
        network_of(replace(recipe, stem="convolutions"))


def test_muon_moves_the_hybrids_matrices_and_adamw_its_heads_and_the_rest():
    run = begin(replace(mzts_hybrid(), **TINY), FACES, OTHERS, CPU)
    network = run.learns["network"]
    of_muon = {
        p.data_ptr()
        for group in run.optimizer.param_groups
        if "ns_steps" in group
        for p in group["params"]
    }
    by_muon = {name for name, p in network.named_parameters() if p.data_ptr() in of_muon}
    assert {"embed.backbone.pw_1.weight", "embed.project.weight"} < by_muon
    assert all(name.startswith("embed.") or "blocks" in name or "inter" in name for name in by_muon)
    assert sum(p.numel() for g in run.optimizer.param_groups for p in g["params"]) == sum(
        p.numel() for p in run.learns.parameters() if p.requires_grad
    )
    with pytest.raises(ValueError, match="optimizer 'lion' is not one of 'adamw', 'muon'"):
        begin(replace(SMALL, optimizer="lion"), FACES, OTHERS, CPU)


def test_mixup_mixes_images_and_labels_in_the_same_share_with_the_same_others():
    torch.manual_seed(0)
    labels = torch.eye(6)
    images = labels[:, None, :, None].expand(6, 3, 6, 2)
    several = [mixed(images, labels, 0.5) for _ in range(20)]
    for pictures, mixtures in several:
        torch.testing.assert_close(pictures[:, 1, :, 0], mixtures)
        torch.testing.assert_close(mixtures.sum(1), torch.ones(6))
    assert len({round(m.max().item(), 4) for _, m in several}) > 5


@pytest.mark.parametrize("recipe", [SMALL, replace(mzts_hybrid(), **TINY)], ids=lambda r: r.name)
def test_a_run_of_attributes_that_was_begun_anew_goes_on_bit_for_bit(tmp_path, recipe):
    train(begin(recipe, FACES, OTHERS, CPU), tmp_path / "whole")
    stopping = begin(recipe, FACES, OTHERS, CPU)
    told, calls = stopping.losses, iter(range(9))

    def broken(batch):
        if next(calls) == 2:
            raise OSError("the power fails")
        return told(batch)

    stopping.losses = broken
    with pytest.raises(OSError, match="power"):
        train(stopping, tmp_path / "stopped", save_every_s=0)
    assert state_of(tmp_path / "stopped")["step"] == 2
    train(begin(recipe, FACES, OTHERS, CPU), tmp_path / "stopped")
    assert not differences(state_of(tmp_path / "whole"), state_of(tmp_path / "stopped"))


def test_figures_stand_beside_the_majoritys_answer():
    class Knows(torch.nn.Module):
        """Names the first 20 attributes, and calls the others absent."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(9.0))

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            fields = images_BCHW.mean(1).unfold(1, 17, 17).unfold(2, 16, 16).mean((3, 4))[:, :, :5]
            there = torch.where(fields.flatten(1) > 0, 1.0, -1.0)
            there[:, 20:] = -1
            return self.scale * there

    found = figures(Knows(), OTHERS, OTHERS.pixels, np.zeros(40, bool))
    labels = OTHERS.labels_NA
    assert found["mean_accuracy"] == pytest.approx(0.5 + 0.5 * (~labels[:, 20:]).mean())
    assert found["majority_mean_accuracy"] == pytest.approx((~labels).mean())
    assert found["mean_balanced_accuracy"] == pytest.approx(0.75)
    mean = (found["mean_accuracy"] + found["mean_balanced_accuracy"]) / 2
    assert found["score"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"best": "beauty"}, "best 'beauty' is not one of 'score', 'mean_accuracy'"),
        ({"size": (112,)}, r"size \(112,\): a height and a width are wanted"),
    ],
)
def test_a_recipe_of_attributes_that_cannot_run_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        begin(replace(SMALL, **change), FACES, OTHERS, CPU)


def test_one_command_trains_on_celeba_by_its_partitions(monkeypatch, tmp_path, capsys):
    write_celeba(tmp_path / "data" / "celeba", FACES, OTHERS)
    command(monkeypatch, tmp_path, "mzts", "--set", "depth=3", "batch=8", "steps=2", "size=64,48")
    [round_] = rounds_of(tmp_path / "runs" / "mzts" / "best.safetensors")
    assert (round_["faces"], round_["size"], round_["depth"]) == (16, [64, 48], 3)
    said = capsys.readouterr().out
    assert "mzts: found 16 faces for training and 8 for validation; CelebA (162,770" in said


def test_absent_data_end_the_command_with_2_found_and_expected(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, tmp_path, "mzts")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "mzts: expected CelebA (162,770 faces for training" in said
    assert f"found nothing at {tmp_path / 'data' / 'celeba'}" in said
    write_celeba(tmp_path / "data" / "celeba", FACES, OTHERS)
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path, "mzts-hybrid")
    assert "expected ImageNet's MobileNetV1 (.npz); found nothing" in capsys.readouterr().err
