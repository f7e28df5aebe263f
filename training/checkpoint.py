"""What a run leaves behind: checkpoints that it goes on from, and its network alone.

Everything is written beside its name first (`.part`), brought to the disk and then renamed, so that
a run killed at any moment, or a disk that is full, leaves the last good file as it was. With
several ranks every other rank writes its own part (its shard of a classifier, its optimiser) under
a name with the step, and rank 0's `last.pt`, renamed when all of them lie there, says which step
counts.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from training import ranks

# Fields of a recipe that say no more than how long it lasts: a run may be made longer while its
# rate has not begun to fall.
LENGTH = ("steps", "decay_steps")


@dataclass
class Progress:
    """How far a run has come.

    step: steps taken. validations: what each validation gave, oldest first, with its `step`.
    rounds: the recipes that its network had gone through before this one."""

    step: int = 0
    validations: list[dict[str, float]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)


def save(
    path: Path,
    recipe: Any,
    learns: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Writes the whole state; every rank must call.

    Raises ValueError for weights that are not finite, OSError where it cannot be written: either
    leaves the file of before."""
    _require_finite(learns, f"{recipe.name}: after step {progress.step - 1}")
    state = {
        "recipe": asdict(recipe),
        "ranks": ranks.ranks(),
        **vars(progress),
        "learns": learns.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    mine = _part_of(path, progress.step)
    if ranks.rank():
        write(mine, lambda part: torch.save(state, part))
    ranks.agree()
    if not ranks.rank():
        write(path, lambda part: torch.save(state, part))
    ranks.agree()
    if ranks.rank():
        for older in path.parent.glob(_part_of(path, "*").name):
            if older != mine:
                older.unlink()


def resume(
    path: Path, recipe: Any, learns: nn.ModuleDict, optimizer: torch.optim.Optimizer
) -> Progress:
    """The progress that path tells, its state loaded; nothing done and no progress without it.

    Raises ValueError for a checkpoint of another recipe (naming the fields), of another number of
    ranks, for one that cannot be prolonged any more, and for what is no checkpoint."""
    if not path.exists():
        return Progress()
    kept = _load(path)
    _refuse_another(path, kept, asdict(recipe))
    if kept["ranks"] != ranks.ranks():
        raise ValueError(f"{path} was saved by {kept['ranks']} ranks; here are {ranks.ranks()}")
    if ranks.rank():
        kept = _load(_part_of(path, kept["step"]))
    learns.load_state_dict(kept["learns"])
    optimizer.load_state_dict(kept["optimizer"])
    return Progress(kept["step"], kept["validations"], kept["rounds"])


def keep_network(path: Path, network: nn.Module, rounds: list[dict[str, Any]]) -> None:
    """The network alone as safetensors; in its metadata every recipe it went through, in order.

    Raises as save does."""
    _require_finite(network, f"{path} is not written:")
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write(path, lambda part: save_file(weights, part, metadata={"rounds": json.dumps(rounds)}))


def warm_up(path: Path, network: nn.Module) -> list[dict[str, Any]]:
    """The kept network's rounds, its weights loaded. Raises ValueError where they do not fit."""
    rounds = rounds_of(path)
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"{path} holds another network: {_first_lines(error)}") from error
    return rounds


def rounds_of(path: Path) -> list[dict[str, Any]]:
    """The recipes that a network was trained by. Raises ValueError where its file tells none."""
    facts = metadata_of(path)
    if "rounds" not in facts:
        raise ValueError(f"{path} does not say by which recipe it was trained")
    rounds: list[dict[str, Any]] = json.loads(facts["rounds"])
    return rounds


def metadata_of(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its weights. Raises ValueError for another file."""
    try:
        with safe_open(path, "pt") as kept:
            return kept.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} holds no weights (safetensors): {error}") from error


def write(path: Path, fill: Callable[[Path], Any]) -> None:
    """The file that `fill` makes, whole or not at all, in a folder that is made where it is not
    there. Raises OSError that names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    with _said(path):
        try:
            fill(part)
            _to_disk(part)
            part.replace(path)
            _to_disk(path.parent)
        finally:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The text as a file, as `write` makes one."""
    write(path, lambda part: part.write_text(text, encoding="utf-8"))


@contextmanager
def _said(path: Path) -> Iterator[None]:
    # PyTorch's and safetensors' writers report a full disk by errors of their own.
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        before = "what it held before is untouched" if path.exists() else "nothing was left of it"
        free = shutil.disk_usage(path.parent).free / 1e6
        raise OSError(
            f"{path} could not be written, with {free:,.0f} MB free on its disk: "
            f"{_first_lines(error)}; {before}"
        ) from error


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _part_of(path: Path, step: int | str) -> Path:
    return path.with_name(f"{path.stem}-{step}-{ranks.rank()}of{ranks.ranks()}.pt")


def _load(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no checkpoint: {_first_lines(error)}") from error
    if "learns" not in kept:
        raise ValueError(f"{path} was left by an earlier form of the loop; --warm takes weights")
    return kept


def _refuse_another(path: Path, kept: dict[str, Any], ours: dict[str, Any]) -> None:
    theirs = kept["recipe"]
    names = sorted(ours.keys() | theirs.keys())
    other = [k for k in names if k not in LENGTH and ours.get(k) != theirs.get(k)]
    if other:
        changes = ", ".join(f"{k} {theirs.get(k)!r} there, {ours.get(k)!r} here" for k in other)
        raise ValueError(f"{path} is of another recipe: {changes}")
    constant = min(r["steps"] - r["decay_steps"] for r in (ours, theirs))
    if kept["step"] > constant and any(ours[k] != theirs[k] for k in LENGTH):
        raise ValueError(
            f"{path} was saved at step {kept['step']}, when its rate had begun to fall (or would "
            f"have by now); to go on for longer, put stable.pt in its place"
        )


def _require_finite(learns: nn.Module, said: str) -> None:
    for name, value in learns.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{said} {name} is not finite")


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
