"""One rank of several that train a small network with a sharded classifier, and what it saw.

The tests compare it with the same done in one process (`whole`)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.losses import MARGINS
from training.sharded import Classifier

CLASSES, WIDTH, STEPS = 11, 6, 3


@dataclass
class Seen:
    """Of every step the loss, the network's gradients and those of the rank's weights."""

    losses: list[Tensor] = field(default_factory=list)
    network: list[list[Tensor]] = field(default_factory=list)
    weight: list[Tensor] = field(default_factory=list)
    state: dict[str, Tensor] = field(default_factory=dict)


# Every loss, and the readings of the best-known one; scales that leave every gradient some size.
OPTIONS: dict[str, dict[str, Any]] = {
    **{loss: {"loss": loss, "scale": 8.0} for loss in MARGINS},
    "softmax_linear": {"loss": "softmax_linear"},
    "lengths": {"loss": "sphereface", "normalise": False},
    "paper": {"ema": "paper", "r_with_margin": True, "scale": 8.0},
}


def batch(step: int) -> tuple[Tensor, Tensor]:
    """The step's global batch: inputs (12, 5), labels (12,), some of them -1."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(12, 5, generator=generator)
    return inputs, torch.randint(-1, CLASSES, (12,), generator=generator)


def rows(rank: int, world: int) -> slice:
    """A rank's rows of the batch: half each of two, and different numbers of three."""
    bounds = [0, 6, 12] if world == 2 else [0, 7, 9, 12]
    return slice(bounds[rank], bounds[rank + 1])


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(5, 8), nn.PReLU(8), nn.Linear(8, WIDTH))


def start() -> Tensor:
    """The first weights of all classes, of the size that trained ones have."""
    return torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(8))


def trained(net: nn.Module, classifier: Classifier, part: slice) -> Seen:
    """STEPS steps of plain descent on that part of every batch."""
    seen = Seen()
    parameters = [*net.parameters(), *classifier.parameters()]
    for step in range(STEPS):
        inputs, labels = batch(step)
        loss = classifier(net(inputs[part]), labels[part])
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        seen.losses.append(loss.detach())
        seen.network.append([p.grad.clone() for p in net.parameters()])
        seen.weight.append(classifier.weight.grad.clone())
        with torch.no_grad():
            for parameter in parameters:
                parameter -= 0.1 * parameter.grad
    seen.state = classifier.state_dict()
    return seen


def whole(**options: Any) -> Seen:
    """What one process sees that has the batch and the classes alone."""
    return trained(network(), Classifier(CLASSES, WIDTH, init_CD=start(), **options), slice(None))


def run(world: int, folder: Path) -> list[dict[str, Any]]:
    """What each of `world` processes saw, joined by gloo."""
    torch.multiprocessing.spawn(_rank, (world, folder), nprocs=world)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    part = rows(rank, world)
    found: dict[str, Any] = {}
    for name, options in OPTIONS.items():
        classifier = Classifier(CLASSES, WIDTH, init_CD=start(), **options)
        found[name] = trained(DistributedDataParallel(network()), classifier, part)
    found["drawn"] = Classifier(CLASSES, WIDTH, seed=3).weight.detach()
    found["sampled"] = [_sampled(part) for _ in range(2)]
    found["unlabelled"] = _unlabelled(part)
    found["refused"] = _refused(part, rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def _sampled(part: slice) -> tuple[Classifier, Seen]:
    classifier = Classifier(CLASSES, WIDTH, init_CD=start(), sample=0.1, seed=5)
    return classifier, trained(DistributedDataParallel(network()), classifier, part)


def _unlabelled(part: slice) -> tuple[Tensor, Tensor]:
    """The loss and the embeddings' gradient of a batch without labels."""
    embeddings = torch.randn(12, WIDTH)[part].requires_grad_()
    loss = Classifier(CLASSES, WIDTH)(embeddings, torch.full((12,), -1)[part])
    loss.backward()
    return loss.detach(), embeddings.grad


def _refused(part: slice, rank: int) -> str:
    """The error where the last row of rank 1 has a class too many."""
    labels = torch.zeros(12, dtype=torch.int64)[part]
    if rank == 1:
        labels[-1] = CLASSES
    try:
        Classifier(CLASSES, WIDTH)(torch.randn(len(labels), WIDTH), labels)
    except ValueError as error:
        return str(error)
    return "nothing"
