"""Which of several processes this one is, and what they agree on; alone, every answer is its own.

`torchrun --nproc_per_node 2 -m training train RECIPE` starts the processes and tells each who it
is. Each takes its part of the same batch; DistributedDataParallel averages their gradients, so that
two ranks of 32 crops take the step of one of 64. What stays a rank's own: BatchNorm normalises by
the rank's part of the batch (the kept statistics are those of rank 0), and dropout is drawn anew.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# A rank waits so long for the others: longer than any validation, which rank 0 does alone.
PATIENCE = timedelta(hours=2)


def join(device: str) -> torch.device:
    """The device of this process (cpu or cuda), after meeting the others where torchrun began it.

    Raises ValueError for cuda where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA device here")
    if not dist.is_torchelastic_launched():
        return torch.device(device)
    if not dist.is_initialized():
        # What is agreed on lies in the CPU's memory, so gloo is there beside nccl.
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=PATIENCE)
    if device == "cpu":
        return torch.device("cpu")
    torch.cuda.set_device(dist.get_node_local_rank())
    return torch.device("cuda", torch.cuda.current_device())


def leave() -> None:
    """The end of what join began."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number in [0, ranks()); rank 0 logs, validates and saves what all share."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def agree(*flags: bool) -> list[bool]:
    """Each flag as true if any rank says so; every rank must ask. No flags: they wait for all."""
    if ranks() == 1:
        return list(flags)
    raised = torch.tensor([False, *flags], dtype=torch.int32)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised[1:]]


def told(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if ranks() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


@contextmanager
def first() -> Iterator[None]:
    """A block that rank 0 goes through before the others: what it leaves on disk, they find."""
    if rank():
        agree()
    yield
    if not rank():
        agree()


def averaging(network: nn.Module) -> nn.Module:
    """The network whose gradients are the ranks' mean; alone, the network itself."""
    return DistributedDataParallel(network) if ranks() > 1 else network


def seed_step(seed: int, step: int) -> None:
    """Seeds what torch draws in a step by (seed, step, rank): a resumed run draws the same."""
    words = np.random.SeedSequence((seed, step, rank())).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]))
