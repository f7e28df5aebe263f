"""MZTS (seed paper 003, doi 10.1109/FG57933.2023.10042513): a vision transformer in zones, for
facial attributes, and its self-distillation.

The paper is known by its abstract alone: encoder blocks in groups ("zones") that interact, lest
what shallow ones know be forgotten, and class tokens of the last zone teaching those of the
shallower. All that is numeric here, and the exact form of both, is our design after ViT
(arXiv:2010.11929), DeiT (arXiv:2012.12877) and "Be your own teacher" (arXiv:1905.08094). Shapes: B
images, N tokens, D their width, G zones, A attributes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.ir import one_of

WIDTHS = {"tiny": 192, "small": 384, "base": 768}  # DeiT's
HEAD = 64  # width of a head of attention
MEMORY = ("cls", "tokens")
TEACHERS = ("last", "attn")


@dataclass(frozen=True)
class Zones:
    """What every zone says: logits_GBA (G, B, A) and class tokens tokens_GBD, the last one last."""

    logits_GBA: Tensor
    tokens_GBD: Tensor


class Attention(nn.Module):
    """Multi-head attention of x (B, N, D) over a memory (B, M, D), by default x itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, memory_BMD: Tensor | None = None) -> Tensor:
        memory = x_BND if memory_BMD is None else memory_BMD
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x_BND), *self.key_value(memory).chunk(2, dim=2))
        )
        # Written out: PyTorch's own, on a CPU, takes four times as long for bfloat16's gradients.
        weights_BhNM = torch.softmax(query @ key.mT * HEAD**-0.5, dim=-1)
        attended_BhNd = weights_BhNM @ value
        return self.out(attended_BhNd.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)) with four times the width and GELU: ViT's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.attention(self.norm1(x_BND))
        return x_BND + self.mlp(self.norm2(x_BND))


class Interaction(nn.Module):
    """x + attention(LN(x), over LN(memory)): a zone asks what earlier zones ended with.

    One norm serves both. The last projection begins at zero, so that a new network is a plain ViT.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width)

    def forward(self, x_BND: Tensor, memory_BMD: Tensor) -> Tensor:
        return x_BND + self.attention(self.norm(x_BND), self.norm(memory_BMD))


class MZTS(nn.Module):
    """Images float32 (B, 3, H, W) to attributes' logits (B, attributes); in training to Zones.

    size: (H, W) or one side for both, pixels, multiples of patch (8 for the service's 136 x 112).
    width: tiny, small or base, DeiT's 192, 384 or 768. zones divides depth; one zone is a plain
    ViT. memory: of each earlier zone a zone sees the class token ("cls") or all tokens. In
    evaluation the last zone alone answers and the others' heads are not computed. 22,897,656
    parameters for small, 224 pixels, three zones, all three heads counted; 5,845,560 for tiny,
    90,621,816 for base. Raises ValueError for an argument out of its range and for images of
    another size."""

    def __init__(
        self,
        size: int | tuple[int, int] = 224,
        *,
        patch: int = 16,
        width: str = "small",
        depth: int = 12,
        zones: int = 3,
        memory: str = "cls",
        attributes: int = 40,
    ) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if any(side < patch or side % patch for side in self.size):
            raise ValueError(f"size {self.size}: patches of {patch} do not tile it")
        one_of("width", width, WIDTHS)
        one_of("memory", memory, MEMORY)
        if zones < 1 or depth % zones:
            raise ValueError(f"{zones} zones do not divide a depth of {depth}")
        channels, patches = WIDTHS[width], (self.size[0] // patch) * (self.size[1] // patch)
        self.each, self.memory = depth // zones, memory
        self.embed = nn.Conv2d(3, channels, patch, patch)
        self.token = nn.Parameter(torch.empty(1, 1, channels))
        self.positions = nn.Parameter(torch.empty(1, 1 + patches, channels))
        self.blocks = nn.ModuleList(Block(channels) for _ in range(depth))
        self.interactions = nn.ModuleList(Interaction(channels) for _ in range(zones - 1))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, attributes))
            for _ in range(zones)
        )
        self.apply(_initialise)
        for table in (self.token, self.positions):
            nn.init.trunc_normal_(table, std=0.02)
        for interaction in self.interactions:
            nn.init.zeros_(interaction.attention.out.weight)

    def forward(self, images_BCHW: Tensor) -> Tensor | Zones:
        if images_BCHW.shape[2:] != self.size:
            (h, w), (height, width) = images_BCHW.shape[2:], self.size
            raise ValueError(f"images are {h} x {w}; this network is for {height} x {width}")
        patches_BND = self.embed(images_BCHW).flatten(2).mT
        token_B1D = self.token.expand(patches_BND.shape[0], -1, -1)
        x_BND = torch.cat([token_B1D, patches_BND], dim=1) + self.positions
        ends: list[Tensor] = []
        for zone in range(len(self.heads)):
            if zone:
                seen = [end if self.memory == "tokens" else end[:, :1] for end in ends]
                x_BND = self.interactions[zone - 1](x_BND, torch.cat(seen, dim=1))
            for block in self.blocks[zone * self.each : (zone + 1) * self.each]:
                x_BND = block(x_BND)
            ends.append(x_BND)
        if not self.training:
            return self.heads[-1](x_BND[:, 0])
        tokens = [end[:, 0] for end in ends]
        logits = [head(token) for head, token in zip(self.heads, tokens, strict=True)]
        return Zones(torch.stack(logits), torch.stack(tokens))


def token_projections(network: MZTS) -> nn.ModuleList:
    """P_g of self_distillation, one D x D layer a shallow zone: learned with the network, not a
    part of it."""
    width = network.token.shape[2]
    return nn.ModuleList(nn.Linear(width, width) for _ in network.interactions)


def self_distillation(
    zones: Zones,
    labels_BA: Tensor,
    projections: nn.ModuleList | None = None,
    *,
    supervise: bool = True,
    beta: float = 0.5,
    tau: float = 2.0,
    lam: float = 0.1,
    teacher: str = "last",
) -> Tensor:
    """The scalar BCE(z_G, y) + sum over shallow g of what they owe to the labels and the teacher:

        (1 - beta) BCE(z_g, y) + beta tau^2 KL(teacher | z_g) + lam mean (P_g(cls_g) - cls_T)^2

    All are means over images and attributes (or token elements); KL is that of independent
    Bernoulli variables at temperature tau; the teacher has no gradient. labels_BA: (B, A) in
    [0, 1]. projections: token_projections', needed where lam is not 0. Each term has its switch:
    supervise=False, beta=0, lam=0. teacher: the "last" zone, or "attn", the mean of all zones'
    tokens and logits weighted by softmax over g of cls_g . cls_G / sqrt(D). Raises ValueError for
    beta outside [0, 1], tau not above 0, an unknown teacher and missing projections."""
    if not 0 <= beta <= 1 or tau <= 0:
        raise ValueError(f"beta {beta} is not in [0, 1] or tau {tau} not above 0")
    one_of("teacher", teacher, TEACHERS)
    shallow = range(len(zones.logits_GBA) - 1)
    if lam and shallow and (projections is None or len(projections) != len(shallow)):
        raise ValueError(f"lam {lam}: {len(shallow)} projections of tokens are needed")
    logits_BA, token_BD = _teacher(zones, teacher)
    loss = F.binary_cross_entropy_with_logits(zones.logits_GBA[-1], labels_BA)
    for g in shallow:
        student_BA = zones.logits_GBA[g]
        if supervise:
            owed = F.binary_cross_entropy_with_logits(student_BA, labels_BA)
            loss = loss + (1 - beta) * owed
        if beta:
            loss = loss + beta * tau**2 * bernoulli_divergence(logits_BA / tau, student_BA / tau)
        if lam:
            loss = loss + lam * F.mse_loss(projections[g](zones.tokens_GBD[g]), token_BD)
    return loss


def bernoulli_divergence(teacher_BA: Tensor, student_BA: Tensor) -> Tensor:
    """Mean KL of independent Bernoulli variables with these logits, the student's from the
    teacher's; >= 0."""
    present = torch.sigmoid(teacher_BA)
    by_present = F.logsigmoid(teacher_BA) - F.logsigmoid(student_BA)
    by_absent = F.logsigmoid(-teacher_BA) - F.logsigmoid(-student_BA)
    return (present * by_present + (1 - present) * by_absent).mean()


def _teacher(zones: Zones, kind: str) -> tuple[Tensor, Tensor]:
    """The teacher's logits (B, A) and token (B, D), without gradient."""
    logits_GBA, tokens_GBD = zones.logits_GBA.detach(), zones.tokens_GBD.detach()
    if kind == "last":
        return logits_GBA[-1], tokens_GBD[-1]
    scores_GB = (tokens_GBD * tokens_GBD[-1]).sum(2) / tokens_GBD.shape[2] ** 0.5
    weights_GB1 = torch.softmax(scores_GB, dim=0)[..., None]
    return (weights_GB1 * logits_GBA).sum(0), (weights_GB1 * tokens_GBD).sum(0)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
