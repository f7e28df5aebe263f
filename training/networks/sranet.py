"""SRANet: self residual attention over positions (SSA) and over channels (SCA) in every unit of an
IR network.

Both compare projections of a map with themselves, and add to the map what the likest positions, or
channels, hold. "Light" pools what is compared to the sum of its 2x2 means and maxima, which spares
memory: naive SSA's matrix has H W rows and columns. Shapes: B images, C channels, H x W positions,
N = H W of them, M = floor(H / 2) floor(W / 2) after pooling, c = C / 2."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.attention import narrowed
from training.networks.ir import EMBEDDING, UNITS_24, UNITS_49, IRNet, Style, one_of

# How Tables 1 and 2 name the modules, and the pools each takes. The paper implies a naive SCA
# without pools, its author's code keeps them, and the published size cannot tell: "unpooled" is
# the other reading.
SPATIAL = {"naive": (), "avg": ("avg",), "max": ("max",), "light": ("avg", "max")}
CHANNEL = {**SPATIAL, "naive": ("avg", "max"), "unpooled": ()}
GAMMAS = ("learned0", "one")
UNITS = {50: UNITS_24, 100: UNITS_49}
STYLE = Style(middle_norm=True, project=True, dropout=0.4, last_norm=nn.BatchNorm1d)


def pooled(x_BCHW: Tensor, pools: tuple[str, ...]) -> Tensor:
    """The sum of the map's 2x2 means and / or maxima (equations 1, 5 and 6), flat: (B, C, M).

    The map itself, (B, C, N), where pools is empty; an odd last row or column is left out. Raises
    ValueError where there is no 2x2 cell."""
    if not pools:
        return x_BCHW.flatten(2)
    if min(x_BCHW.shape[2:]) < 2:
        height, width = x_BCHW.shape[2:]
        raise ValueError(f"a map of {height} x {width} has no 2 x 2 cell to pool")
    taken = {"avg": F.avg_pool2d, "max": F.max_pool2d}
    first, *others = [taken[pool](x_BCHW, 2) for pool in pools]
    return sum(others, first).flatten(2)


class SSA(nn.Module):
    """F + gamma V A^T with A = softmax(Q^T K), (B, N, M), over its rows: equations 1 to 4.

    Q = phi(F), K = pooled theta(F), both of C / 16 channels, V = pooled rho(F) of C; each
    projection is a 1x1 convolution with BN and PReLU. gamma is learnt and starts at zero, as in
    the author's code ("learned0"), or one, as in equation 4 ("one"). dead_conv: one more C to C
    convolution and BN that nothing uses, for counting alone: the paper's file sizes hold them.
    Raises ValueError for an unknown kind or gamma, and in `forward` for a map that cannot be
    pooled."""

    def __init__(
        self,
        channels: int,
        kind: str = "light",
        gamma: str = "learned0",
        *,
        dead_conv: bool = False,
    ) -> None:
        super().__init__()
        self.pools = SPATIAL[one_of("spatial attention", kind, SPATIAL)]
        self.theta = _projection(channels, narrowed(channels))
        self.phi = _projection(channels, narrowed(channels))
        self.rho = _projection(channels, channels)
        self.gamma = _gamma(gamma)
        if dead_conv:
            self.dead = _projection(channels, channels)[:2]

    def affinity(self, x_BCHW: Tensor) -> Tensor:
        """A (B, N, M): how much of each pooled position every position takes; rows sum to one."""
        keys = pooled(self.theta(x_BCHW), self.pools)
        return (self.phi(x_BCHW).flatten(2).mT @ keys).softmax(2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        values = pooled(self.rho(x_BCHW), self.pools)
        taken = values @ self.affinity(x_BCHW).mT
        return x_BCHW + self.gamma * taken.view_as(x_BCHW)


class SCA(nn.Module):
    """F + gamma A V with A = softmax(Q K^T), (B, C, c), over its rows: equations 5 to 9.

    Q = pooled theta(F) of C channels, K = pooled phi(F) and V = rho(F) of C / 2, of C where the
    kind is naive or unpooled. Equation 8 sums over i, but the text says row-wise: the softmax is
    over the last axis. Projections, gamma and errors are those of SSA."""

    def __init__(self, channels: int, kind: str = "light", gamma: str = "learned0") -> None:
        super().__init__()
        self.pools = CHANNEL[one_of("channel attention", kind, CHANNEL)]
        fewer = channels if kind in ("naive", "unpooled") else channels // 2
        self.theta = _projection(channels, channels)
        self.phi = _projection(channels, fewer)
        self.rho = _projection(channels, fewer)
        self.gamma = _gamma(gamma)

    def affinity(self, x_BCHW: Tensor) -> Tensor:
        """A (B, C, c): how much of each projected channel every channel takes; rows sum to one."""
        queries, keys = (pooled(f(x_BCHW), self.pools) for f in (self.theta, self.phi))
        return (queries @ keys.mT).softmax(2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        taken = self.affinity(x_BCHW) @ self.rho(x_BCHW).flatten(2)
        return x_BCHW + self.gamma * taken.view_as(x_BCHW)


def _projection(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.PReLU(o))


def _gamma(kind: str) -> nn.Parameter | float:
    return 1.0 if one_of("gamma", kind, GAMMAS) == "one" else nn.Parameter(torch.zeros(()))


def sra(
    channels: int,
    spatial: str | None = "light",
    channel: str | None = "light",
    gamma: str = "learned0",
    *,
    dead_conv: bool = False,
) -> nn.Sequential:
    """SCA, then SSA (Figure 4), without the one that is None."""
    modules = []
    if channel is not None:
        modules.append(SCA(channels, channel, gamma))
    if spatial is not None:
        modules.append(SSA(channels, spatial, gamma, dead_conv=dead_conv))
    return nn.Sequential(*modules)


class SRANet(IRNet):
    """Crops float32 (B, 3, 112, 112), (p - 127.5) / 128 of RGB, to embeddings (B, embedding).

    depth: 50 (24 units) or 100 (49). spatial: None or SSA's kind (naive, avg, max, light);
    channel: None or SCA's (naive, unpooled, avg, max, light). The paper's SRANet has both light,
    SSANet and SCANet one, its baseline "ResNet50" neither. Embeddings are not normalised. Weights
    start Xavier-uniform, as in the author's code. 49,213,496 parameters at depth 50 with both,
    43,590,848 without. Raises ValueError for a value that is not named here."""

    def __init__(
        self,
        depth: int = 50,
        spatial: str | None = None,
        channel: str | None = None,
        gamma: str = "learned0",
        dead_conv: bool = False,
        embedding: int = EMBEDDING,
    ) -> None:
        units = UNITS[one_of("depth", depth, UNITS)]
        one_of("gamma", gamma, GAMMAS)
        attention = partial(sra, spatial=spatial, channel=channel, gamma=gamma, dead_conv=dead_conv)
        super().__init__(units, attention, STYLE, embedding)
        self.apply(_xavier)


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
