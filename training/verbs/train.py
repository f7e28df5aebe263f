"""python -m training train: a recipe's run, or its going on from where it stopped."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from training.data.crops import join, read_crops
from training.loop import train
from training.recipes.ecacface_mobile import Recipe
from training.teacher import teacher_embeddings
from training.verbs import Verbs


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser("train", parents=[places], help="train, or go on where a run stopped")
    verb.set_defaults(call=run)
    verb.add_argument("--steps", type=int, help="in place of the recipe's")
    verb.add_argument("--decay-steps", type=int, help="in place of the recipe's")
    verb.add_argument("--warm", type=Path, help="weights (safetensors) that a new run begins with")
    verb.add_argument(
        "--plain", action="store_true", help="without the step that needs a C++ compiler"
    )


def run(a: argparse.Namespace) -> None:
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    changed = {"steps": a.steps, "decay_steps": a.decay_steps}
    recipe = replace(Recipe(), **{k: v for k, v in changed.items() if v})
    cache, people = a.runs / "cache", a.data / "identities"
    parts = [read_crops(people / f"{name}.csv", cache) for name in ("train", "unlabelled")]
    graph = a.data / "teacher" / "teacher.onnx"
    answers = np.concatenate(
        [teacher_embeddings(graph, s.pixels_NHWC, cache, threads=a.threads) for s in parts]
    )
    validation = read_crops(people / "validation.csv", cache)
    train(
        recipe,
        join(*parts),
        answers,
        validation,
        a.runs / recipe.name,
        fused=not a.plain,
        warm=a.warm,
    )
