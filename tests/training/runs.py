"""A run that has nothing to do with faces: two layers with dropout learn random numbers.

As a script, `python tests/training/runs.py FOLDER`, it is killed at many moments and goes on each
time: a process a moment, forked off before PyTorch has any thread.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.loop import Run, train

WIDTH = 64


@dataclass(frozen=True)
class Recipe:
    name: str = "small"
    seed: int = 3
    batch: int = 4
    steps: int = 6
    decay_steps: int = 2
    learning_rate: float = 0.05


def small_run(
    recipe: Recipe = Recipe(),
    *,
    before: Callable[[int], None] = lambda step: None,
    scores: Callable[[], float] | None = None,
    **more: object,
) -> Run:
    """before: called at the begin of each step. scores: what the validation gives, a number."""
    torch.manual_seed(recipe.seed)
    network = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5), nn.BatchNorm1d(WIDTH))

    def batches(start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        for step in range(start, stop):
            drawn = torch.Generator().manual_seed(step)
            yield step, torch.randn(recipe.batch, WIDTH, generator=drawn)

    learns = nn.ModuleDict({"network": network, "head": nn.Linear(WIDTH, 1)})
    seen = iter(range(1 << 30))

    def losses(batch: Tensor) -> dict[str, Tensor]:
        before(next(seen))
        told = learns["head"](network(batch))
        return {"loss": F.mse_loss(told, batch[:, :1]), "told": told.mean()}

    optimizer = torch.optim.AdamW([{"params": learns.parameters(), "share": 1.0}])
    return Run(
        recipe=recipe,
        learns=learns,
        losses=losses,
        optimizer=optimizer,
        rate=lambda step, _: recipe.learning_rate * min(1, (recipe.steps - step) / 2),
        batches=batches,
        validate=lambda: {"score": scores() if scores else network[0].weight.sum().item()},
        best="score",
        validate_every=2,
        **more,
    )


def state_of(folder: Path) -> dict[str, object]:
    """All that a checkpoint holds, flat: a name from the outermost key to the innermost."""
    flat: dict[str, object] = {}

    def lay_out(name: str, value: object) -> None:
        if isinstance(value, dict | list):
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            for key, one in inner:
                lay_out(f"{name}.{key}".strip("."), one)
        else:
            flat[name] = value

    lay_out("", torch.load(folder / "last.pt", weights_only=True))
    return flat


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """The names under which two states are not the same to the last bit.

    A run that goes on ends like one that was never stopped on any processor: after each step both
    hold the same numbers, and the same kernels meet them in the same shapes and on as many threads.
    """
    same = lambda a, b: torch.equal(a, b) if isinstance(a, Tensor) else a == b  # noqa: E731
    return [name for name in one.keys() | other.keys() if not same(one.get(name), other.get(name))]


def _in_a_child(work: Callable[[], object]) -> int:
    """The signal that ended a process of its own that does the work; 0 where it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except OSError as error:
            print(error, flush=True)
            os._exit(17)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _kill(at: int, of: list[int]) -> None:
    of.append(0)
    if len(of) > at:
        os.kill(os.getpid(), signal.SIGKILL)


def _killed_in_step(folder: Path, step: int) -> None:
    train(small_run(before=lambda n: _kill(step, [0] * n)), folder, save_every_s=0)


def _killed_in_saving(folder: Path, call: int) -> None:
    """Between the writing of a file and its renaming, or behind it: at one of its calls."""
    calls: list[int] = []
    real = os.fsync
    os.fsync = lambda file: (_kill(call, calls), real(file))[1]
    train(small_run(), folder, save_every_s=0)


def _killed_in_writing(folder: Path, file: int) -> None:
    """When half of a checkpoint is written."""
    files: list[int] = []
    real = torch.save

    def half(state: object, path: Path) -> None:
        real(state, path)
        if len(files) == file:
            os.truncate(path, path.stat().st_size // 2)
        _kill(file, files)

    torch.save = half
    train(small_run(), folder, save_every_s=0)


def _without_room(folder: Path) -> None:
    """The disk is full, from the fourth step on, for any file over 30 kB."""

    def fill(step: int) -> None:
        if step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))

    train(small_run(before=fill), folder, save_every_s=0)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    sys.stdout.reconfigure(write_through=True)  # nothing is left to a child to write again
    small_run()  # what PyTorch imports late is then there for every child
    _in_a_child(lambda: train(small_run(), folder / "whole"))
    whole = state_of(folder / "whole")
    moments = [(f"step {n}", _killed_in_step, n) for n in range(1, 6)]
    moments += [(f"saving, call {n}", _killed_in_saving, n) for n in range(0, 14)]
    moments += [(f"writing, file {n}", _killed_in_writing, n) for n in range(5)]
    for name, killed, moment in moments:
        place = folder / name.replace(" ", "-")
        ended = _in_a_child(lambda k=killed, p=place, m=moment: k(p, m))
        assert ended == signal.SIGKILL, f"{name} was not killed, but ended by {ended}"
        _in_a_child(lambda p=place: train(small_run(), p))
        different = differences(whole, state_of(place))
        print(f"{name}: {different or 'the same'}")
    print("full disk:", _in_a_child(lambda: _without_room(folder / "full")))
    print("last good step:", state_of(folder / "full")["step"])
    _in_a_child(lambda: train(small_run(), folder / "full"))
    print("full, then room:", differences(whole, state_of(folder / "full")) or "the same")
    print("left over:", sorted(p.name for p in folder.glob("*/*.part")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
