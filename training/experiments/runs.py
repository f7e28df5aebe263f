"""An experiment's runs, a folder each: finished ones are passed over, broken ones go on.

A run is finished when its figures.json is there; it holds the recipe as it was asked for, so that
what was done another way is never taken for the same.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from training.checkpoint import write_text
from training.loop import Run, train
from training.report import read_log

FIGURES = "figures.json"

Arm = TypeVar("Arm")


def run_once(
    recipe: Any,
    folder: Path,
    begin: Callable[[Any], Run],
    measure: Callable[[Run, Path], dict[str, Any]],
    *,
    warm: Path | None = None,
) -> dict[str, Any]:
    """The run's figures, trained from where it stood unless they are there.

    begin: recipe to Run. warm: a kept network that a new run begins with. measure: the figures of
    the trained Run and its folder; they are kept with the recipe, the hardware, the seconds that
    the steps took and their median speed. Raises as train does, and ValueError for figures of
    another recipe."""
    kept = folder / FIGURES
    asked = _plain(asdict(recipe))
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        _refuse_another(kept, found["recipe"], asked)
        return found
    run = begin(recipe)
    train(run, folder, warm=warm)
    found = {"recipe": asked, **cost(folder, run.recipe.batch), **measure(run, folder)}
    write_text(kept, json.dumps(found) + "\n")
    return found


def complete(
    arms: Sequence[Arm],
    seeds: int,
    folder: Path,
    *,
    name_of: Callable[[Arm, int], str],
    begin: Callable[[], Callable[[Arm, int], Any]],
    page: Callable[[list[dict[str, Any]]], None],
    say_again: Callable[[], None],
    train_none: bool = False,
) -> None:
    """Every arm's run with seeds 1 to `seeds` that is not finished below `folder`, and the page of
    those finished, written after each.

    The seeds come one after the other, so that what is finished can always be compared. name_of: a
    run's folder. begin: reads what runs learn from, and gives what runs an arm with a seed; not
    called where nothing is left to do, nor with train_none, which writes the page alone: of the
    runs that are there or, where none is, its sentences again by say_again."""
    left = [
        (arm, seed)
        for seed in range(1, seeds + 1)
        for arm in arms
        if not (folder / name_of(arm, seed) / FIGURES).exists()
    ]
    found = gather(folder)
    if train_none and not found:
        say_again()
        return
    if train_none or not left:
        page(found)
        return
    run = begin()
    for place, (arm, seed) in enumerate(left, 1):
        print(f"run {place} of {len(left)}: {name_of(arm, seed)}", flush=True)
        run(arm, seed)
        page(gather(folder))


def gather(folder: Path) -> list[dict[str, Any]]:
    """The figures of every finished run below the folder, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"*/{FIGURES}"))]


def cost(folder: Path, batch: int) -> dict[str, Any]:
    """hardware, seconds (of the steps alone, summed over the log's rows) and images_a_s, the
    median."""
    [only] = read_log(folder / "log.jsonl")
    rows = [row for row in only.rows if "images_a_s" in row]
    starts = [0, *(row["step"] for row in rows[:-1])]
    seconds = sum(
        (row["step"] - start) * batch / row["images_a_s"]
        for start, row in zip(starts, rows, strict=True)
    )
    known = ("cpu", "cores", "threads", "gpu", "torch", "step", "bfloat16")
    return {
        "hardware": {name: only.opening[name] for name in known if name in only.opening},
        "seconds": seconds,
        "images_a_s": median(row["images_a_s"] for row in rows),
    }


def _refuse_another(kept: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    other = [k for k in sorted(ours | theirs) if ours.get(k) != theirs.get(k)]
    if other:
        changes = ", ".join(f"{k} {theirs.get(k)!r} there, {ours.get(k)!r} here" for k in other)
        raise ValueError(f"{kept} is of another recipe: {changes}; remove its folder or its --runs")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
