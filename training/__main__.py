"""python -m training: trains the shipped embedding."""

import argparse
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    p.add_argument("--runs", type=Path, default=ROOT / "runs")
    p.add_argument("--steps", type=int)
    p.add_argument("--decay-steps", type=int)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--plain", action="store_true", help="PyTorch's own steps; no C++ compiler is needed")
    a = p.parse_args()

    import torch

    from training.data.crops import join, read_crops
    from training.loop import train
    from training.recipes.ecacface_mobile import Recipe
    from training.teacher import teacher_embeddings

    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    cache, people = a.runs / "cache", a.data / "identities"
    parts = [read_crops(people / f"{name}.csv", cache) for name in ("train", "unlabelled")]
    graph = a.data / "teacher" / "teacher.onnx"
    import numpy as np
    answers = np.concatenate([teacher_embeddings(graph, s.pixels_NHWC, cache, threads=a.threads) for s in parts])
    recipe = Recipe()
    if a.steps:
        recipe = replace(recipe, steps=a.steps)
    if a.decay_steps:
        recipe = replace(recipe, decay_steps=a.decay_steps)
    train(recipe, join(*parts), answers, read_crops(people / "validation.csv", cache),
          a.runs / recipe.name, fused=not a.plain)


if __name__ == "__main__":
    main()
