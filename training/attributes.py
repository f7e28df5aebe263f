"""A recipe of attributes as the loop's Run: faces -> every zone's logits -> what they owe to the
labels and to the last zone.

B faces of a batch, N of a set, A attributes."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training import ranks
from training.classification import average_of, logits_of, parameter_groups, refuse
from training.data.attributes import AttributeSet, read_celeba
from training.data.batches import Batch, coming
from training.data.framed import framed
from training.data.pixels import Pixels, chosen
from training.evaluate.attributes import attribute_figures
from training.loop import Run
from training.machine import Machine
from training.muon import MuonAndAdamW, matrices
from training.networks.ir import one_of
from training.networks.mobilenet import STRIDE, mobilenet, read_mobilenet
from training.networks.mzts import MZTS, Zones, self_distillation, token_projections
from training.recipes import DataAbsent, Sources
from training.recipes.attributes import RECIPES, Recipe
from training.recognition import as_input
from training.schedules import rate, sized

__all__ = ["RECIPES", "begin", "network_of", "prepare"]

STEMS = ("patches", "mobilenet")
OPTIMIZERS = ("adamw", "muon")
BEST = ("score", "mean_accuracy", "mean_balanced_accuracy")  # the higher the better
WORDS = "CelebA (162,770 faces for training, 19,867 for validation, 19,962 for the test)"


def prepare(recipe: Recipe, sources: Sources, machine: Machine) -> Run:
    """The recipe's run on the sources' data, by the official partitions; prints what was found
    beside what CelebA has. The test is not read.

    Raises DataAbsent where CelebA or ImageNet's weights, if wanted, are not there, ValueError for
    a source that the recipe does not take."""
    refuse(recipe, sources, "validation", "teacher")
    if len(sources.train) > 1:
        raise ValueError(f"{recipe.name} learns from one set, not from {len(sources.train)}")
    path = sources.train[0] if sources.train else sources.data / "celeba"
    if not path.exists():
        raise DataAbsent(f"{recipe.name}: expected {WORDS}; found nothing at {path}")
    backbone = None
    if recipe.stem == "mobilenet":
        backbone = sources.data / "weights" / "mobilenet_v1_1.0_224.npz"
        if not backbone.exists():
            raise DataAbsent(
                f"{recipe.name}: expected ImageNet's MobileNetV1 (.npz); found nothing at "
                f"{backbone}"
            )
    faces = read_celeba(path)
    learnt, validation = (part(faces, split) for split in ("train", "validation"))
    if ranks.rank() == 0:
        print(
            f"{recipe.name}: found {len(learnt):,} faces for training and {len(validation):,} for "
            f"validation; {WORDS} is what its authors hand out"
        )
    run = begin(recipe, learnt, validation, machine, backbone)
    run.facts["train"] = [str(path)]
    return run


def part(faces: AttributeSet, split: str) -> AttributeSet:
    """The faces of a split. Raises ValueError where it has none."""
    places = np.flatnonzero(faces.split_N == split)
    if not len(places):
        raise ValueError(f"the set has no {split} part")
    return replace(
        faces,
        pixels=chosen(faces.pixels, places),
        labels_NA=faces.labels_NA[places],
        split_N=faces.split_N[places],
        paths=[faces.paths[i] for i in places],
    )


def begin(
    recipe: Recipe,
    faces: AttributeSet,
    validation: AttributeSet,
    machine: Machine,
    backbone: Path | None = None,
) -> Run:
    """A Run from fresh weights; a MobileNet stem begins with those of the .npz `backbone`, where
    one is given. Raises ValueError for a recipe whose names or sizes do not fit, naming them."""
    one_of("best", recipe.best, BEST)
    found = replace(sized(recipe, len(faces)), faces=len(faces))
    torch.manual_seed(recipe.seed)
    network = network_of(recipe, len(faces.names)).train()
    if backbone is not None:
        read_mobilenet(backbone, network.embed.backbone)
    stepping = machine.stepping(network)
    learns = nn.ModuleDict({"network": network})
    projections = None
    if recipe.lam and recipe.zones > 1:
        projections = learns["projections"] = token_projections(network).to(machine.device)
    spared = (network.token, network.positions)
    stem = network.embed.backbone if recipe.stem == "mobilenet" else None
    groups = parameter_groups(
        learns, recipe.weight_decay, spared=spared, slower=stem, share=recipe.stem_share
    )
    optimizer = _optimizer(recipe, network, groups)
    average = average_of(network, optimizer, recipe.average)
    if average is not None:
        learns["average"] = average
    size = (recipe.size[0], recipe.size[1])
    pixels, others = framed(faces.pixels, size), framed(validation.pixels, size)

    def losses(batch: Batch) -> dict[str, Tensor]:
        inputs = as_input(batch.pixels_NHWC, machine.device)
        labels_BA = torch.from_numpy(faces.labels_NA[batch.indices_N]).float().to(machine.device)
        if recipe.mixup:
            inputs, labels_BA = mixed(inputs, labels_BA, recipe.mixup)
        with machine.autocast():
            zones = stepping(inputs)
        zones = Zones(zones.logits_GBA.float(), zones.tokens_GBD.float())
        loss = self_distillation(
            zones,
            labels_BA,
            projections,
            supervise=recipe.supervise,
            beta=recipe.beta,
            tau=recipe.tau,
            lam=recipe.lam,
            teacher=recipe.teacher,
        )
        last = F.binary_cross_entropy_with_logits(zones.logits_GBA[-1].detach(), labels_BA)
        return {"loss": loss, "train_cross_entropy": last}

    kept = network if average is None else average.module
    majority_A = faces.labels_NA.mean(0) >= 0.5
    return Run(
        recipe=found,
        learns=learns,
        losses=losses,
        optimizer=optimizer,
        rate=lambda step, _: rate(found, step, found.faces),
        batches=coming(pixels, recipe),
        validate=lambda: figures(kept, validation, others, majority_A),
        best=recipe.best,
        clip=recipe.clip or None,
        validate_every=found.validate_every,
        facts={"step": machine.step, "bfloat16": machine.bfloat16, "attributes": faces.names},
        kept=kept,
    )


def network_of(recipe: Recipe, attributes: int = 40) -> MZTS:
    """The recipe's network, fresh. Raises ValueError for a size that is none, for a stem that there
    is not and for one that does not give a token a patch."""
    one_of("stem", recipe.stem, STEMS)
    if len(recipe.size) != 2:
        raise ValueError(f"size {recipe.size}: a height and a width are wanted")
    network = MZTS(
        recipe.size,
        patch=recipe.patch,
        width=recipe.width,
        depth=recipe.depth,
        zones=recipe.zones,
        memory=recipe.memory,
        attributes=attributes,
    )
    if recipe.stem == "mobilenet":
        if recipe.patch != STRIDE:
            raise ValueError(f"patch {recipe.patch}: MobileNet's stem gives tokens of {STRIDE}")
        channels = network.token.shape[2]
        # Its maps are never negative: what all images share must go, else it drowns what they
        # do not, and hair and glasses are not learnt.
        network.embed = nn.Sequential(
            OrderedDict(
                backbone=mobilenet("dw_11"),
                norm=nn.BatchNorm2d(512),
                project=nn.Conv2d(512, channels, 1),
            )
        )
    return network


def _optimizer(
    recipe: Recipe, network: MZTS, groups: list[dict[str, Any]]
) -> torch.optim.Optimizer | MuonAndAdamW:
    one_of("optimizer", recipe.optimizer, OPTIMIZERS)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    inner = (p for name, p in network.named_parameters() if not name.startswith("heads."))
    return MuonAndAdamW(groups, recipe.learning_rate, matrices(inner))


def mixed(images_BCHW: Tensor, labels_BA: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Images and labels, each mixed with another of the batch in one share drawn for all (mixup,
    arXiv:1710.09412)."""
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    other_B = torch.randperm(len(images_BCHW)).to(images_BCHW.device)
    both = ((x, x[other_B]) for x in (images_BCHW, labels_BA))
    images, labels = (share * x + (1 - share) * other for x, other in both)
    return images, labels


def figures(
    network: nn.Module, faces: AttributeSet, pixels: Pixels, majority_A: NDArray[np.bool_]
) -> dict[str, float]:
    """Mean accuracy and mean balanced accuracy over the attributes, `score`, the mean of both, the
    majority's accuracy, calibration error and cross-entropy."""
    logits_NA = torch.from_numpy(logits_of(network, pixels))
    labels_NA = torch.from_numpy(faces.labels_NA).double()
    measured = attribute_figures(
        logits_NA.sigmoid().numpy(),
        faces.labels_NA,
        faces.names,
        majority_A=majority_A,
        rounds=0,
    )
    accuracy, balanced = measured["mean_accuracy"], measured["mean_balanced_accuracy"]
    names = ("mean_accuracy", "mean_balanced_accuracy", "majority_mean_accuracy")
    return {
        **{name: measured[name] for name in (*names, "expected_calibration_error")},
        "score": (accuracy + balanced) / 2,
        "cross_entropy": F.binary_cross_entropy_with_logits(logits_NA, labels_NA).item(),
    }
