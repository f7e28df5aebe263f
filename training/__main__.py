"""python -m training train | evaluate: the shipped embedding's run, and the figures of any
graph."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from training.data.crops import join, read_crops
from training.evaluate.figures import draw_calibration, evaluate
from training.loop import train
from training.recipes.ecacface_mobile import Recipe
from training.teacher import teacher_embeddings

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    shared.add_argument("--runs", type=Path, default=ROOT / "runs", help="checkpoints and caches")
    shared.add_argument("--threads", type=int, default=2)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("train", parents=[shared], help="train, or go on where a run stopped")
    verb.set_defaults(call=_train)
    verb.add_argument("--steps", type=int, help="in place of the recipe's")
    verb.add_argument("--decay-steps", type=int, help="in place of the recipe's")
    verb.add_argument("--warm", type=Path, help="weights (safetensors) that a new run begins with")
    verb.add_argument(
        "--plain", action="store_true", help="without the step that needs a C++ compiler"
    )
    verb = verbs.add_parser("evaluate", parents=[shared], help="figures of a recognition graph")
    verb.set_defaults(call=_evaluate)
    verb.add_argument("graph", type=Path)
    verb.add_argument("--out", type=Path, required=True, help="a json file")
    verb.add_argument("--picture", type=Path, help="a png of the calibration's curves")
    arguments = parser.parse_args()
    arguments.call(arguments)


def _train(a: argparse.Namespace) -> None:
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


def _evaluate(a: argparse.Namespace) -> None:
    figures = evaluate(a.graph, a.data, a.runs / "cache", threads=a.threads)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(figures, indent=1) + "\n")
    if a.picture:
        draw_calibration(figures["calibration"], a.picture)
    print(json.dumps(figures["metrics"], indent=1))


if __name__ == "__main__":
    main()
