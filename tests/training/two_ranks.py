"""A real recipe for a few steps, as one of the ranks that torchrun began, or alone.

MobileFaceNet normalises by its kept statistics here: by the batch's, each rank would use its own
half of the batch, and two ranks would rightly learn something else than one.
`python -m tests.training.two_ranks FOLDER` stops once on the way, keeps what lies there then in
`stopped` beside, and goes on.
"""

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.training.crops import drawn_crops
from training import ranks
from training.data.batches import Batch
from training.loop import Run, train
from training.machine import this_machine
from training.recipes.recognition import ecacface_mobile
from training.recognition import begin

# Plain descent: Adam divides by the gradient's size, and so makes much of rounding.
RECIPE = replace(
    ecacface_mobile(),
    attention="none",
    optimizer="sgd",
    decays="all",
    learning_rate=0.01,
    batch=4,
    steps=4,
    warmup_steps=1,
    decay_steps=2,
)


def run() -> Run:
    crops = drawn_crops(people=5, each=2)
    crops.labels_N[3] = -1
    answers = np.random.default_rng(0).normal(size=(len(crops), 512)).astype(np.float32)
    machine = this_machine("cpu", step="plain")
    begun = begin(RECIPE, crops, answers, drawn_crops(people=2, each=2), machine)
    begun.learns["network"].eval()
    return begun


def stopping(step: int) -> Run:
    """The run, which the last rank asks to stop in that step."""
    begun = run()
    losses, steps = begun.losses, iter(range(9))

    def last_asks(batch: Batch) -> dict[str, Tensor]:
        if next(steps) == step and ranks.rank() == ranks.ranks() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(batch)

    begun.losses = last_asks
    return begun


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    try:
        train(stopping(1), folder, log_every=1)
    except KeyboardInterrupt:
        ranks.agree()
        if ranks.rank() == 0:
            shutil.copytree(folder, folder.with_name("stopped"))
    train(run(), folder, log_every=1)
    ranks.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
