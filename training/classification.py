"""What the runs share that name what they see: expressions, attributes, people of a closed set.

B images of a batch, N of a set, K classes or attributes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.data.pixels import Pixels
from training.loop import require_finite
from training.muon import MuonAndAdamW
from training.recipes import Sources
from training.recognition import as_input


class Tally(nn.Module):
    """The share of right answers since it was last taken; kept in checkpoints with what learns."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("right", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def add(self, right_B: Tensor) -> None:
        self.right += right_B.sum().to(self.right.device)
        self.seen += right_B.numel()

    def take(self) -> float:
        share = self.right.item() / max(self.seen.item(), 1)
        self.right.zero_()
        self.seen.zero_()
        return share


def logits_of(network: nn.Module, pixels_NHWC: Pixels, *, batch: int = 64) -> NDArray[np.float64]:
    """(N, K) of uint8 RGB crops, the network in evaluation mode meanwhile.

    Raises NotFinite, naming the crop, for logits that are not finite."""
    modes = [(module, module.training) for module in network.modules()]
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        parts = [
            network(as_input(np.array(pixels_NHWC[i : i + batch]), device)).double().cpu()
            for i in range(0, len(pixels_NHWC), batch)
        ]
    for module, mode in modes:
        module.training = mode
    logits_NK = torch.cat(parts)
    require_finite(logits_NK, "the answer to crop")
    return logits_NK.numpy()


def parameter_groups(
    modules: nn.Module,
    weight_decay: float,
    *,
    spared: Iterable[Tensor] = (),
    slower: nn.Module | None = None,
    share: float = 1.0,
) -> list[dict[str, Any]]:
    """An optimizer's groups of what learns: matrices and kernels decay; vectors, scalars and what
    is spared do not. The part `slower` learns at this share of the rate, the others at all of it.
    """
    learnt = [p for p in modules.parameters() if p.requires_grad]
    without = {id(p) for p in (*spared, *(p for p in learnt if p.ndim <= 1))}
    slow = {id(p) for p in slower.parameters()} if slower is not None else set()
    groups = [
        {
            "params": [p for p in learnt if (id(p) in without, id(p) in slow) == (light, late)],
            "weight_decay": 0.0 if light else weight_decay,
            "share": share if late else 1.0,
        }
        for late in (False, True)
        for light in (False, True)
    ]
    return [group for group in groups if group["params"]]


def average_of(
    network: nn.Module, optimizer: torch.optim.Optimizer | MuonAndAdamW, decay: float
) -> AveragedModel | None:
    """The running mean of weights and statistics, w <- decay w + (1 - decay) network after each
    step of the optimizer; it begins as what the first step leaves. None for decay 0."""
    if not decay:
        return None
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    average.requires_grad_(False)
    optimizer.register_step_post_hook(lambda *_: average.update_parameters(network))
    return average


def held_out(labels_N: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """(N,): true for `share` of each class, drawn by the seed: at least one image of a class and
    never all; none of a class with one."""
    chosen_N = np.zeros(len(labels_N), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels_N):
        places = np.flatnonzero(labels_N == label)
        count = min(max(1, round(share * len(places))), len(places) - 1)
        chosen_N[rng.permutation(places)[:count]] = True
    return chosen_N


def refuse(recipe: Any, sources: Sources, *names: str) -> None:
    """Raises ValueError for a source that was named but that the recipe does not take."""
    for name in names:
        if getattr(sources, name):
            raise ValueError(f"{recipe.name} takes no --{name}")
