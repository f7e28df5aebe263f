"""A recipe of expression as the loop's Run: faces -> logits -> cross-entropy with the label or with
the distribution of the votes.

B faces of a batch, N of a set, K classes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training import ranks, schedules
from training.classification import (
    Tally,
    average_of,
    held_out,
    logits_of,
    parameter_groups,
    refuse,
)
from training.data.batches import Batch, coming
from training.data.expressions import FOLDS, ExpressionSet, read_ck_plus, read_raf_db
from training.data.fer import read_fer2013, read_ferplus
from training.data.framed import framed
from training.data.pixels import Pixels, chosen
from training.evaluate.expression import expression_figures
from training.loop import Run
from training.machine import Machine
from training.networks.ir import one_of
from training.networks.mobilenet import read_mobilenet
from training.networks.patt_lite import PAttLite, freeze
from training.recipes import DataAbsent, Sources
from training.recipes.expression import RECIPES, Recipe, second_stage
from training.recognition import as_input
from training.schedules import is_over, plateaus, sized

__all__ = ["RECIPES", "begin", "network_of", "prepare"]

HELD_OUT = 0.1  # of a training part without a validation part beside it
BEST = ("score", "accuracy", "macro_f1", "epoch_accuracy")  # the higher the better
LOWEST_RATE = 1e-6  # that a plateau lowers to


@dataclass(frozen=True)
class Source:
    """place: below --data. read: of a path, under a rule. words: what the paper had of it."""

    place: str
    read: Callable[[Path, str], ExpressionSet]
    words: str


SETS = {
    "ferplus": Source(
        "ferplus",
        lambda path, rule: read_ferplus(path, rule=rule),
        "FERPlus (28,558 faces for training, 3,579 for validation, 3,573 for the test)",
    ),
    "fer2013": Source(
        "fer2013/fer2013.csv",
        lambda path, _: read_fer2013(path),
        "FER2013's csv (28,659 faces for training, 3,584 for validation, 3,582 for the test)",
    ),
    "raf-db": Source(
        "raf-db/basic",
        lambda path, _: read_raf_db(path),
        "RAF-DB's basic expressions (12,271 faces for training, 3,068 for the test)",
    ),
    "ck+": Source(
        "ck+",
        lambda path, _: read_ck_plus(path),
        "CK+ (327 labelled sequences of 123 people)",
    ),
}


def prepare(recipe: Recipe, sources: Sources, machine: Machine) -> Run:
    """The recipe's run on the sources' data; prints what was found beside what the paper had.

    Raises DataAbsent where the set or ImageNet's weights are not there, ValueError for a name that
    there is not and for a source that the recipe does not take."""
    refuse(recipe, sources, "validation", "teacher")
    if recipe.data not in SETS:
        raise ValueError(f"data {recipe.data!r} is not one of {', '.join(SETS)}")
    source = SETS[recipe.data]
    if len(sources.train) > 1:
        raise ValueError(f"{recipe.name} learns from one set, not from {len(sources.train)}")
    path = sources.train[0] if sources.train else sources.data / source.place
    backbone = sources.data / "weights" / "mobilenet_v1_1.0_224.npz"
    for wanted, place in ((source.words, path), ("ImageNet's MobileNetV1 (.npz)", backbone)):
        if not place.exists():
            raise DataAbsent(f"{recipe.name}: expected {wanted}; found nothing at {place}")
    faces, validation = parts(recipe, lambda rule: source.read(path, rule))
    if ranks.rank() == 0:
        print(
            f"{recipe.name}: found {len(faces):,} faces for training and {len(validation):,} for "
            f"validation; {source.words} is the paper's"
        )
    run = begin(recipe, faces, validation, machine, backbone)
    run.facts["train"] = [str(path)]
    return run


def parts(
    recipe: Recipe, read: Callable[[str], ExpressionSet]
) -> tuple[ExpressionSet, ExpressionSet]:
    """(what is learnt from, what is chosen by): the set's own parts where it has them.

    read: the set under a rule. The test, a fold of CK+ included, is in neither; people of CK+ are
    in one alone. Raises ValueError for a fold that there is not."""
    faces = read(recipe.rule)
    if recipe.data == "raf-db":
        learnt = part(faces, faces.split_N == "train")
        chosen_by = held_out(learnt.labels_N, HELD_OUT, recipe.seed)
        return part(learnt, ~chosen_by), part(learnt, chosen_by)
    if recipe.data == "ck+":
        if not 0 <= recipe.fold < FOLDS:
            raise ValueError(f"fold {recipe.fold} is not one of 0 to {FOLDS - 1}")
        test, second = (f"fold {(recipe.fold + i) % FOLDS}" for i in range(2))
        by_second = faces.split_N == second
        return part(faces, (faces.split_N != test) & ~by_second), part(faces, by_second)
    other = faces if recipe.validation_rule == recipe.rule else read(recipe.validation_rule)
    return part(faces, faces.split_N == "train"), part(other, other.split_N == "validation")


def part(faces: ExpressionSet, taken_N: NDArray[np.bool_]) -> ExpressionSet:
    """The faces for which taken_N says true. Raises ValueError where it does of none."""
    places = np.flatnonzero(taken_N)
    if not len(places):
        raise ValueError("a part of the set is empty")
    return replace(
        faces,
        pixels=chosen(faces.pixels, places),
        labels_N=faces.labels_N[places],
        votes_NK=None if faces.votes_NK is None else faces.votes_NK[places],
        split_N=faces.split_N[places],
        paths=[faces.paths[i] for i in places],
    )


def begin(
    recipe: Recipe,
    faces: ExpressionSet,
    validation: ExpressionSet,
    machine: Machine,
    backbone: Path | None = None,
) -> Run:
    """A Run from ImageNet's weights, an .npz for mobilenet.read_mobilenet; without, from fresh
    ones. A run of stage 1 has that of stage 2 behind it (`then`). Raises ValueError for a recipe
    whose names or sizes do not fit, naming them."""
    one_of("best", recipe.best, BEST)
    targets_NK = distributions(recipe, faces)
    found = replace(sized(recipe, len(faces)), faces=len(faces))
    torch.manual_seed(recipe.seed)
    network = network_of(recipe, len(faces.classes))
    if backbone is not None:
        read_mobilenet(backbone, network.backbone)
    if recipe.stage:
        freeze(network, recipe.stage, last=recipe.last if recipe.stage == 2 else 0)
        # The fused step normalises by the batch, which a frozen backbone must not.
        machine = replace(machine, step="plain") if machine.step == "fused" else machine
    network.train()
    stepping = machine.stepping(network)
    learns = nn.ModuleDict({"network": network, "tally": Tally()})
    groups = parameter_groups(network, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    average = average_of(network, optimizer, recipe.average)
    if average is not None:
        learns["average"] = average
    weights_K = torch.from_numpy(class_weights(faces, recipe.balance)).to(machine.device)
    size = (recipe.size, recipe.size)
    pixels, others = framed(faces.pixels, size), framed(validation.pixels, size)

    def losses(batch: Batch) -> dict[str, Tensor]:
        inputs = as_input(batch.pixels_NHWC, machine.device)
        with machine.autocast():
            logits_BK = stepping(inputs).float()
        targets_BK = torch.from_numpy(targets_NK[batch.indices_N]).to(machine.device)
        labels_B = torch.from_numpy(faces.labels_N[batch.indices_N]).to(machine.device)
        right_B = logits_BK.argmax(1) == labels_B
        learns["tally"].add(right_B)
        loss = F.cross_entropy(logits_BK, targets_BK, weight=weights_K)
        return {"loss": loss, "train_accuracy": right_B.float().mean()}

    kept = network if average is None else average.module

    def validate() -> dict[str, float]:
        return figures(kept, validation, others) | {"epoch_accuracy": learns["tally"].take()}

    second = lambda: begin(second_stage(recipe), faces, validation, machine, backbone)  # noqa: E731
    return Run(
        recipe=found,
        learns=learns,
        losses=losses,
        optimizer=optimizer,
        rate=lambda step, validations: rate(found, step, [v[recipe.best] for v in validations]),
        batches=coming(pixels, recipe),
        validate=validate,
        best=recipe.best,
        clip=recipe.clip or None,
        validate_every=found.validate_every,
        facts={"step": machine.step, "bfloat16": machine.bfloat16, "classes": list(faces.classes)},
        kept=kept,
        then=second if recipe.stage == 1 else None,
    )


def network_of(recipe: Recipe, classes: int = 8) -> PAttLite:
    """The recipe's network, fresh."""
    return PAttLite(
        classes,
        attention=recipe.attention,
        patches=recipe.patches,
        cut=recipe.cut,
        size=recipe.size,
    )


def rate(recipe: Recipe, step: int, gains: list[float]) -> float:
    """The learning rate of a step in [0, steps); 0 ends the run. gains: `best` of each validation
    so far."""
    least = recipe.least_gain
    if recipe.stop_after and is_over(gains, patience=recipe.stop_after, least_gain=least):
        return 0.0
    lowered = plateaus(gains, patience=recipe.lower_after, least_gain=least)
    epoch = step // (recipe.faces // recipe.batch)
    slowed = 1 / (1 + epoch / recipe.slows) if recipe.slows else 1.0
    fixed = schedules.rate(recipe, step, recipe.faces)
    return max(0.1**lowered, min(1.0, LOWEST_RATE / recipe.learning_rate)) * slowed * fixed


def distributions(recipe: Recipe, faces: ExpressionSet) -> NDArray[np.float32]:
    """(N, K), rows of sum 1: what is learnt of each face.

    The shares of the votes, where the recipe learns them, else 1 for the label. Raises ValueError
    for a set without votes."""
    if not recipe.votes:
        return np.eye(len(faces.classes), dtype=np.float32)[faces.labels_N]
    if faces.votes_NK is None:
        raise ValueError(f"{recipe.name} learns votes, and {recipe.data} has none")
    votes_NK = faces.votes_NK
    counted_NK = np.where(votes_NK >= recipe.least_votes, votes_NK, 0)
    counted_NK = np.where(counted_NK.any(1, keepdims=True), counted_NK, votes_NK)
    return (counted_NK / counted_NK.sum(1, keepdims=True)).astype(np.float32)


def class_weights(faces: ExpressionSet, balance: float) -> NDArray[np.float32]:
    """(K,): (N / (K n_k)) ** balance, n_k faces of N with class k; 0 for a class that none has."""
    counts_K = np.bincount(faces.labels_N, minlength=len(faces.classes))
    with np.errstate(divide="ignore"):
        weights_K = (len(faces) / (len(faces.classes) * counts_K)) ** balance
    return np.where(counts_K, weights_K, 0).astype(np.float32)


def figures(network: nn.Module, faces: ExpressionSet, pixels: Pixels) -> dict[str, float]:
    """Accuracy, macro F1, `score`, the mean of both, calibration error and cross-entropy."""
    logits_NK = torch.from_numpy(logits_of(network, pixels))
    scores_NK = logits_NK.softmax(1).numpy()
    measured = expression_figures(scores_NK, faces.labels_N, faces.classes, rounds=0)
    cross_entropy = F.cross_entropy(logits_NK, torch.from_numpy(faces.labels_N)).item()
    names = ("accuracy", "macro_f1", "expected_calibration_error")
    return {
        **{name: measured[name] for name in names},
        "score": (measured["accuracy"] + measured["macro_f1"]) / 2,
        "cross_entropy": cross_entropy,
    }
