"""The loop: batch -> losses -> step -> checkpoint, the same for every recipe.

It knows nothing of faces. A recipe's `begin` puts together a Run; `train` runs it, from where it
stopped if it did, alone or as one of the ranks that torchrun began.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training import ranks
from training.checkpoint import Progress, keep_network, resume, save, warm_up
from training.journal import Journal, hardware

Validations = list[dict[str, float]]


class NotFinite(ValueError):
    """A validation met an answer of the network that is not finite; the text names the answer."""


def require_finite(answers_NK: Tensor, of: str) -> None:
    """Raises NotFinite for a row that is not finite, naming it: `of` 3 of 40."""
    wrong = (~torch.isfinite(answers_NK.reshape(len(answers_NK), -1)).all(1)).nonzero()
    if len(wrong):
        raise NotFinite(f"{of} {int(wrong[0])} of {len(answers_NK)} is not finite")


@dataclass
class Run:
    """All that the loop needs of a recipe.

    recipe: a frozen dataclass of plain values, `name`, `seed`, `batch`, `steps` and `decay_steps`
    among them (decay_steps 0: the rate never depends on how long the run is). It goes into every
    checkpoint, and a checkpoint of another one is refused.
    learns: what learns, by name, in the mode it learns in. `network` is what is kept, the same on
    every rank; the rest may be a rank's own (the shard of a classifier).
    losses: of a batch, named scalars: `loss` is minimised, the others are logged.
    optimizer: each parameter group has a `share` that multiplies the rate.
    rate: the learning rate of a step, given the validations so far; 0 ends the run (early
    stopping).
    batches: (step, batch) for start <= step < stop, from (seed, step) alone: this rank's part.
    validate: named figures of the network, or none; leaves its mode as it was; raises NotFinite
    for a network that answers something that is not finite. best: the figure by which
    best.safetensors is chosen, highest is best; one that is not finite is never the best.
    clip: the norm that the network's gradient is cut to. facts: more for the log's first row.
    fresh: called once before the first step of a new run, with whether it was given another's
    weights. kept: what is kept in the network's place, an average of it. then: puts together the
    run that goes on from this one's best network, where a recipe has two stages."""

    recipe: Any
    learns: nn.ModuleDict
    losses: Callable[[Any], dict[str, Tensor]]
    optimizer: torch.optim.Optimizer
    rate: Callable[[int, Validations], float]
    batches: Callable[[int, int], Iterator[tuple[int, Any]]]
    validate: Callable[[], dict[str, float]]
    best: str | None = None
    clip: float | None = None
    validate_every: int = 500
    facts: dict[str, Any] = field(default_factory=dict)
    fresh: Callable[[bool], None] | None = None
    kept: nn.Module | None = None
    then: Callable[[], "Run"] | None = None


def train(
    run: Run,
    folder: Path,
    *,
    warm: Path | None = None,
    save_every_s: float = 300,
    log_every: int = 50,
) -> Progress:
    """Trains to the recipe's end, from folder's last.pt where there is one; returns the progress.

    warm: a kept network that a new run begins with. Writes into folder: last.pt (every save_every_s
    seconds and at the end), stable.pt (the state before the rate falls), best.safetensors,
    network.safetensors (at the end), log.jsonl and tensorboard/. SIGINT and SIGTERM finish the
    step, save, and raise KeyboardInterrupt. Raises ValueError for a checkpoint of another recipe
    and for a loss, weights or a validation's answers that are not finite, naming the step, on every
    rank: nothing is kept of that step, best.safetensors and last.pt stay. OSError where the disk is
    full: last.pt is then the last good state."""
    recipe, network = run.recipe, run.learns["network"]
    folder.mkdir(parents=True, exist_ok=True)
    last, alone_or_first = folder / "last.pt", ranks.rank() == 0
    fresh = not ranks.told(last.exists())
    progress = resume(last, recipe, run.learns, run.optimizer)
    if warm is not None and fresh:
        progress.rounds = warm_up(warm, network)
    if fresh and run.fresh is not None:
        run.fresh(warm is not None)
    put = lambda path: save(path, recipe, run.learns, run.optimizer, progress)  # noqa: E731
    if fresh:
        put(last)
    facts = {"recipe": asdict(recipe), "ranks": ranks.ranks(), **hardware(), **run.facts}
    resumed_at = None if fresh else progress.step
    with (
        closing(Journal(folder, facts, resumed_at=resumed_at, writes=alone_or_first)) as journal,
        tqdm(
            total=recipe.steps,
            initial=progress.step,
            unit="step",
            disable=None if alone_or_first else True,
        ) as bar,
        _signals() as asked,
    ):
        figures, seconds = [], 0.0
        stopped, saved, began = False, time.monotonic(), time.monotonic()
        for step, batch in run.batches(progress.step, recipe.steps):
            rate = run.rate(step, progress.validations)
            if rate == 0:
                break
            if step == recipe.steps - recipe.decay_steps:
                put(folder / "stable.pt")
            for group in run.optimizer.param_groups:
                group["lr"] = rate * group["share"]
            ranks.seed_step(recipe.seed, step)

            losses = run.losses(batch)
            figures.append({name: value.item() for name, value in losses.items()})
            loss = figures[-1]["loss"]
            lost, due, stopped = ranks.agree(
                not math.isfinite(loss), time.monotonic() - saved > save_every_s, bool(asked)
            )
            if lost:
                raise ValueError(
                    f"{recipe.name}: the loss of step {step} is {loss}; "
                    f"{last} holds the last good state"
                )
            run.optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            if run.clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), run.clip)
            run.optimizer.step()

            progress.step = step + 1
            seconds += time.monotonic() - began
            images_a_s = len(figures) * recipe.batch / seconds
            bar.set_postfix(loss=f"{loss:.4f}", images_a_s=f"{images_a_s:.1f}", refresh=False)
            bar.update()
            if progress.step % log_every == 0 or progress.step == recipe.steps:
                means = _means(figures)
                journal.row(progress.step, {"rate": rate, **means, "images_a_s": images_a_s})
                figures, seconds = [], 0.0
            if progress.step % run.validate_every == 0 or progress.step == recipe.steps:
                found, fault = ranks.told(_validated(run) if alone_or_first else None)
                if fault:
                    raise ValueError(
                        f"{recipe.name}: the validation after {progress.step} steps failed: "
                        f"{fault}; {last} holds the last state that was saved"
                    )
                if found:
                    journal.row(progress.step, found)
                if run.best and _best(found, progress.validations, run.best):
                    _keep(run, progress, folder / "best.safetensors")
                progress.validations.append({"step": progress.step, **found})
            if due or stopped:
                put(last)
                saved = time.monotonic()
            if stopped:
                raise KeyboardInterrupt(f"{last} goes on from step {progress.step}")
            began = time.monotonic()
    put(last)
    _keep(run, progress, folder / "network.safetensors")
    return progress


def _validated(run: Run) -> tuple[dict[str, float], str]:
    """(the figures, ""), or ({}, what is not finite): rank 0 tells the others either."""
    try:
        return run.validate(), ""
    except NotFinite as error:
        return {}, str(error)


def _best(found: dict[str, float], earlier: Validations, name: str) -> bool:
    """True if the figure is finite and above all earlier ones that are."""
    before = [value for row in earlier if math.isfinite(value := row.get(name, math.nan))]
    return math.isfinite(found[name]) and all(found[name] > value for value in before)


def _keep(run: Run, progress: Progress, path: Path) -> None:
    if ranks.rank() == 0:
        this = {**asdict(run.recipe), "steps": progress.step}
        kept = run.learns["network"] if run.kept is None else run.kept
        keep_network(path, kept, [*progress.rounds, this])


def _means(figures: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in figures) / len(figures) for name in figures[-1]}


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that asked the run to stop, so far; a second one stops it at once."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked and ranks.ranks() == 1:
            raise KeyboardInterrupt("stopped at once, and nothing more was saved")
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
