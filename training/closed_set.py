"""A recipe of a closed set as the loop's Run: crops -> one of K people -> cross-entropy.

`begin` is the door for any two sets of the same people. B crops of a batch, N of a set."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training import ranks
from training.classification import Tally, held_out, logits_of, parameter_groups, refuse
from training.data.batches import Batch, coming
from training.data.crops import Crops
from training.data.framed import framed
from training.data.pixels import Pixels, chosen
from training.data.sets import read_set
from training.loop import Run
from training.machine import Machine
from training.networks.hsanet import HSANet, ResNet50
from training.networks.ir import one_of
from training.recipes import DataAbsent, Sources
from training.recipes.closed_set import RECIPES, Recipe
from training.recognition import as_input
from training.schedules import rate, sized

__all__ = ["RECIPES", "begin", "divided", "network_of", "prepare"]

NETWORKS = ("resnet50", "hsanet")
WORDS = "a folder a person (the paper has 26 people, some 10 to 25 photographs of each)"


def prepare(recipe: Recipe, sources: Sources, machine: Machine) -> Run:
    """The recipe's run on the sources' people: one set, divided by the seed, or a set to learn from
    and one of the same people to validate by.

    Raises DataAbsent where a set is not there, ValueError for sets that do not fit together."""
    refuse(recipe, sources, "teacher")
    if len(sources.train) > 1:
        raise ValueError(f"{recipe.name} learns from one set, not from {len(sources.train)}")
    given = [*sources.train, *([sources.validation] if sources.validation else [])]
    absent = [f"nothing at {path}" for path in given if not path.exists()]
    if absent or not sources.train:
        found = ", ".join(absent) or "no --train"
        raise DataAbsent(f"{recipe.name}: expected {WORDS}; found {found}")
    with ranks.first():
        crops, *others = (read_set(path, sources.cache) for path in given)
    learnt, validation = (crops, *others) if others else divided(crops, recipe.share, recipe.seed)
    if ranks.rank() == 0:
        print(
            f"{recipe.name}: found {len(learnt):,} crops of {len(crops.people):,} people for "
            f"training and {len(validation):,} for validation; expected {WORDS}"
        )
    run = begin(recipe, learnt, validation, machine)
    run.facts["train"] = [str(path) for path in given]
    return run


def divided(crops: Crops, share: float, seed: int) -> tuple[Crops, Crops]:
    """(`share` of each person's crops, the others), drawn by the seed; at least one of a person
    with two in each. Crops without a person are in neither."""
    known = _part(crops, crops.labels_N >= 0)
    aside_N = held_out(known.labels_N, 1 - share, seed)
    return _part(known, ~aside_N), _part(known, aside_N)


def begin(recipe: Recipe, crops: Crops, validation: Crops, machine: Machine) -> Run:
    """A Run from fresh weights. Raises ValueError for a network that there is not, for crops
    without a person, and where the two sets do not have the same people."""
    if validation.people != crops.people:
        odd = sorted(set(crops.people) ^ set(validation.people))
        raise ValueError(f"training and validation differ in people: {', '.join(odd[:5])}")
    if not (len(validation) and (crops.labels_N >= 0).all() and (validation.labels_N >= 0).all()):
        raise ValueError("every crop needs its person, and the validation a crop")
    people = len(crops.people)
    if people < 2:
        raise ValueError(
            f"{recipe.name} tells people apart, and the set has {people} "
            f"({', '.join(crops.people) or 'nobody'}): classification needs at least two people"
        )
    found = replace(sized(recipe, len(crops)), crops=len(crops), people=people)
    torch.manual_seed(recipe.seed)
    network = network_of(recipe, people).train()
    stepping = machine.stepping(network)
    learns = nn.ModuleDict({"network": network, "tally": Tally()})
    optimizer = torch.optim.SGD(
        parameter_groups(network, recipe.weight_decay), lr=recipe.learning_rate, momentum=0.9
    )
    size = (recipe.size, recipe.size)
    pixels = framed(crops.pixels_NHWC, size)
    others = framed(validation.pixels_NHWC, size)

    def losses(batch: Batch) -> dict[str, Tensor]:
        inputs = as_input(batch.pixels_NHWC, machine.device)
        labels_B = torch.from_numpy(crops.labels_N[batch.indices_N]).to(machine.device)
        with machine.autocast():
            logits_BK = stepping(inputs).float()
        right_B = logits_BK.argmax(1) == labels_B
        learns["tally"].add(right_B)
        loss = F.cross_entropy(logits_BK, labels_B)
        return {"loss": loss, "train_accuracy": right_B.float().mean()}

    def validate() -> dict[str, float]:
        found = figures(network, others, validation.labels_N)
        return found | {"epoch_accuracy": learns["tally"].take()}

    return Run(
        recipe=found,
        learns=learns,
        losses=losses,
        optimizer=optimizer,
        rate=lambda step, _: rate(found, step, found.crops),
        batches=coming(pixels, recipe),
        validate=validate,
        best="accuracy",
        validate_every=found.validate_every,
        facts={"step": machine.step, "bfloat16": machine.bfloat16, "people": crops.people},
    )


def network_of(recipe: Recipe, people: int) -> nn.Module:
    """The recipe's network, fresh. Raises ValueError for a name that there is not."""
    one_of("network", recipe.network, NETWORKS)
    if recipe.network == "resnet50":
        return ResNet50(people, width=recipe.width)
    return HSANet(recipe.identity, people, size=recipe.size, heads=recipe.heads, width=recipe.width)


def figures(network: nn.Module, pixels: Pixels, labels_N: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy, macro and weighted F1 (the paper's table 1) and cross-entropy."""
    logits_NK = torch.from_numpy(logits_of(network, pixels))
    cross_entropy = F.cross_entropy(logits_NK, torch.from_numpy(labels_N)).item()
    answers_N, people = logits_NK.argmax(1).numpy(), logits_NK.shape[1]
    return {**f1_figures(answers_N, labels_N, people), "cross_entropy": cross_entropy}


def f1_figures(
    answers_N: NDArray[np.int64], labels_N: NDArray[np.int64], people: int
) -> dict[str, float]:
    """Accuracy, and F1 a person: their mean over people who are there, and over crops."""
    confusion_KK = np.bincount(labels_N * people + answers_N, minlength=people**2)
    confusion_KK = confusion_KK.reshape(people, people)
    there_K, given_K = confusion_KK.sum(1), confusion_KK.sum(0)
    f1_K = 2 * np.diagonal(confusion_KK) / np.maximum(there_K + given_K, 1)
    return {
        "accuracy": float((answers_N == labels_N).mean()),
        "macro_f1": float(f1_K[there_K > 0].mean()),
        "weighted_f1": float((f1_K * there_K).sum() / len(labels_N)),
    }


def _part(crops: Crops, taken_N: NDArray[np.bool_]) -> Crops:
    places = np.flatnonzero(taken_N)
    if not len(places):
        raise ValueError("a part of the set is empty")
    paths = [crops.paths[i] for i in places]
    return Crops(chosen(crops.pixels_NHWC, places), paths, crops.labels_N[places], crops.people)
