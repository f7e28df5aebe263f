"""The classifier of identities: its weights cut over ranks, and the cross-entropy of a batch.

Partial FC (arXiv:2010.05222): a rank holds classes / world of the weights and meets the others'
embeddings instead of their weights, so that 2 million identities fit. B rows of the global batch, D
embedding width, C classes (of this rank, those that take part in the step)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import EMAS, MARGINS, changed_cosines, cosines, curricular_t, true_cosines

LOSSES: dict[str, float | None] = {"softmax_linear": None, **MARGINS}
BLOCK = 4096  # classes whose first weights are drawn at once
# Streams of random numbers under one seed, apart from those of data/batches.py.
START, NEGATIVES = 1 << 41, 1 << 42


class Classifier(nn.Module):
    """Embeddings (b, D) and labels (b,) int64 in [-1, classes) to the loss, a float32 scalar.

    It is the cross-entropy of scale times the cosines as `loss` changes them (losses.MARGINS),
    averaged over the labelled rows of all ranks; a label of -1 means none. Without any labelled row
    it is 0, with a graph. Computed in float32, also under autocast. Ranks may have batches of
    different lengths.

    Gradients are those of this one global loss. A rank's weights get theirs in full: they are its
    own and stay outside DistributedDataParallel. Embeddings get theirs times the number of ranks,
    by which DistributedDataParallel divides the network's gradients; n ranks with b / n rows each
    so learn what one process with b rows learns.

    loss: also "softmax_linear", the softmax of a linear layer without bias whose rows and inputs
    keep their lengths and which has no scale (SRANet's Table 3). margin: None for the paper's.
    normalise: False multiplies a row by its embedding's length instead of by scale, as SphereFace
    was published. alpha, ema, r_with_margin: see curricular_t. sample: the part of its classes that
    a rank computes in a training step: all that the global batch has, then others at random; the
    sum is not corrected for the rest, whose gradient is zero (momentum and decay still move them).
    init_CD (classes, D): the first weights, else drawn from N(0, 0.01^2) by seed, the same for any
    number of ranks; the sampling follows from seed, step and rank.

    State: weight (C, D), this rank's rows of the whole (span); t, CurricularFace's, and step, the
    number of labelled batches trained on, which are equal on all ranks and stand still in
    evaluation mode. Raises ValueError for a bad argument, and on every rank for a label that is out
    of range on one of them."""

    weight: nn.Parameter
    t: Tensor
    step: Tensor

    def __init__(
        self,
        classes: int,
        width: int,
        *,
        loss: str = "curricular",
        scale: float = 64.0,
        margin: float | None = None,
        alpha: float = 0.99,
        ema: str = "code",
        r_with_margin: bool = False,
        sample: float = 1.0,
        normalise: bool = True,
        seed: int = 0,
        init_CD: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.rank, self.world = _place()
        if classes < self.world:
            raise ValueError(f"{classes} classes cannot be cut over {self.world} ranks")
        if loss not in LOSSES:
            raise ValueError(f"loss {loss!r} is not one of {', '.join(LOSSES)}")
        if margin is not None and LOSSES[loss] is None:
            raise ValueError(f"{loss} has no margin, but {margin} is given")
        if ema not in EMAS:
            raise ValueError(f"ema {ema!r} is not one of {', '.join(EMAS)}")
        if not 0 < sample <= 1:
            raise ValueError(f"sample is {sample}; it must be in (0, 1]")
        if init_CD is not None and init_CD.shape != (classes, width):
            raise ValueError(f"init_CD is {tuple(init_CD.shape)}, not {(classes, width)}")
        self.classes, self.loss, self.scale, self.normalise = classes, loss, scale, normalise
        self.margin = LOSSES[loss] if margin is None else margin
        self.alpha, self.ema, self.r_with_margin = alpha, ema, r_with_margin
        self.sample, self.seed = sample, seed
        self.first, self.last = first, last = span(classes, self.rank, self.world)
        if init_CD is None:
            init = _drawn(first, last, width, seed)
        else:
            init = init_CD[first:last].detach().float().clone()
        self.weight = nn.Parameter(init)
        self.register_buffer("t", torch.zeros(()))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings_BD: Tensor, labels_B: Tensor) -> Tensor:
        if embeddings_BD.shape != (len(labels_B), self.weight.shape[1]):
            raise ValueError(
                f"embeddings are {tuple(embeddings_BD.shape)}, "
                f"not {(len(labels_B), self.weight.shape[1])}"
            )
        with torch.autocast(embeddings_BD.device.type, enabled=False):
            embeddings_BD, labels_B = self._of_all_ranks(embeddings_BD.float(), labels_B)
            known = labels_B >= 0
            if not known.any():
                return embeddings_BD.sum() * 0
            logits_BC, labels_B = self._logits(embeddings_BD[known], labels_B[known])
            if self.training:
                self.step += 1
            return self._cross_entropy(logits_BC, labels_B)

    def _of_all_ranks(self, embeddings_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """The global batch, the same on every rank; unlabelled rows fill up the shorter ones."""
        longest = len(labels_B)
        if self.world > 1:
            length = torch.tensor(longest, device=labels_B.device)
            dist.all_reduce(length, dist.ReduceOp.MAX)
            longest = int(length)
            missing = longest - len(labels_B)
            embeddings_BD = _GlobalRows.apply(F.pad(embeddings_BD, (0, 0, 0, missing)))
            labels_B = _gather(F.pad(labels_B, (0, missing), value=-1))
        outside = ((labels_B < -1) | (labels_B >= self.classes)).nonzero()
        if len(outside):
            rank, row = divmod(int(outside[0]), longest)
            label = int(labels_B[outside[0]])
            raise ValueError(
                f"label {label} in row {row} of rank {rank}'s batch is not in [-1, {self.classes})"
            )
        return embeddings_BD, labels_B

    def _logits(self, embeddings_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled logits of this rank's classes that take part, and the labels among them or -1."""
        weight_CD, labels_B = self._taking_part(labels_B)
        if self.loss == "softmax_linear":
            return embeddings_BD @ weight_CD.float().t(), labels_B
        cosines_BC = cosines(embeddings_BD, weight_CD)
        true_B = self._total(true_cosines(cosines_BC.detach(), labels_B))
        if self.training and self.loss == "curricular":
            self.t.copy_(
                curricular_t(
                    self.t,
                    cosines_BC,
                    labels_B,
                    alpha=self.alpha,
                    ema=self.ema,
                    r_with_margin=self.r_with_margin,
                    margin_rad=self.margin,
                    true_B=true_B,
                )
            )
        changed_BC = changed_cosines(
            self.loss,
            cosines_BC,
            labels_B,
            margin=self.margin,
            t=self.t,
            step=int(self.step),
            true_B=true_B,
        )
        scale = self.scale if self.normalise else embeddings_BD.norm(dim=1, keepdim=True)
        return scale * changed_BC, labels_B

    def _taking_part(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        here = (labels_B >= self.first) & (labels_B < self.last)
        labels_B = torch.where(here, labels_B - self.first, -1)
        if not self.training or self.sample == 1:
            return self.weight, labels_B
        positives = labels_B[here].unique()
        rng = np.random.default_rng((self.seed, NEGATIVES, int(self.step), self.rank))
        places = torch.from_numpy(rng.random(len(self.weight))).to(labels_B.device)
        places[positives] = -1  # before every other
        count = max(len(positives), math.ceil(self.sample * len(self.weight)))
        chosen = places.topk(count, largest=False).indices.sort().values
        labels_B = torch.where(here, torch.searchsorted(chosen, labels_B), -1)
        return self.weight.index_select(0, chosen), labels_B

    def _cross_entropy(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        highest_B = logits_BC.detach().amax(1)
        if self.world > 1:
            dist.all_reduce(highest_B, dist.ReduceOp.MAX)
        shifted_BC = logits_BC - highest_B[:, None]
        sum_B = self._total(shifted_BC.exp().sum(1))
        return (sum_B.log() - self._total(true_cosines(shifted_BC, labels_B))).mean()

    def _total(self, part_B: Tensor) -> Tensor:
        return _Total.apply(part_B) if self.world > 1 else part_B


def span(classes: int, rank: int, world: int) -> tuple[int, int]:
    """(first, last + 1) of the classes that a rank holds; sizes differ by one at most."""
    return classes * rank // world, classes * (rank + 1) // world


def join_shards(shards: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The whole's state from those of all ranks, in their order.

    Of a Classifier's state_dict, and as well of an optimiser's state for its weight (momentum goes
    on where the number of ranks changes): tensors with rows are joined, scalars are common. Raises
    ValueError where a scalar differs, or the rows are not those of span in this order."""
    whole = {}
    for name, first in shards[0].items():
        parts = [shard[name] for shard in shards]
        if first.ndim:
            whole[name] = torch.cat(parts)
            spans = [span(len(whole[name]), rank, len(parts)) for rank in range(len(parts))]
            if [len(part) for part in parts] != [last - first for first, last in spans]:
                raise ValueError(
                    f"{name} has {[len(part) for part in parts]} rows a shard, "
                    f"not {[last - first for first, last in spans]}"
                )
        else:
            whole[name] = first.clone()
            # Each rank computes t for itself, and processors differ in rounding; steps are counts.
            near = 1e-5 if first.is_floating_point() else 0.0
            if any(not torch.allclose(part, first, rtol=near, atol=near) for part in parts):
                raise ValueError(f"{name} differs from shard to shard: {[p.item() for p in parts]}")
    return whole


def cut_shard(whole: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    """One rank's state of the whole's (join_shards)."""
    cut = {}
    for name, tensor in whole.items():
        rows = slice(*span(len(tensor), rank, world)) if tensor.ndim else ()
        cut[name] = tensor[rows].clone()
    return cut


def _place() -> tuple[int, int]:
    """(rank, world); (0, 1) where torch.distributed is not in use."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _drawn(first: int, last: int, width: int, seed: int) -> Tensor:
    """Rows [first, last) of first weights ~ N(0, 0.01^2), as CurricularFace's classifier begins."""
    blocks = range(first // BLOCK, (last - 1) // BLOCK + 1)
    rows = [
        np.random.default_rng((seed, START, block)).standard_normal((BLOCK, width), np.float32)
        for block in blocks
    ]
    begin = first - blocks.start * BLOCK
    return 0.01 * torch.from_numpy(np.concatenate(rows)[begin : begin + last - first])


def _gather(rows: Tensor) -> Tensor:
    """The rows of all ranks, which have equally many, in the order of the ranks."""
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


class _GlobalRows(torch.autograd.Function):
    """_gather; backward, the gradient of this rank's rows (see Classifier for the factor).

    Each rank knows what its own classes add to the gradient of all rows: the sum is theirs."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()] * dist.get_world_size()


class _Total(torch.autograd.Function):
    """The sum over ranks; backward unchanged, for all ranks compute the one loss of it."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
