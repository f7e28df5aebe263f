"""The attentions that ECACFace's Table 3 sets ESCA against, each a module of (channels).

Each takes maps (B, C, H, W) to maps of the same shape and stands where ESCA does: behind the last
BN of a residual branch, before the sum. A row's answer does not depend on its neighbours in
evaluation; BAM and SK normalise one vector an image, so in training they need two images. What a
paper and its published code do differently is said, and the code's form taken, since that is what
others measured with."""

import torch
from torch import Tensor, nn

REDUCTION = 16


def narrowed(channels: int) -> int:
    """channels / 16, the width of a bottleneck; ValueError where that is not a whole number."""
    if channels < REDUCTION or channels % REDUCTION:
        raise ValueError(f"{channels} channels are not a multiple of {REDUCTION}")
    return channels // REDUCTION


class SE(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x))): a gate a channel.

    Squeeze and excitation, arXiv:1709.01507, equations 2 to 4 with r = 16; no biases, as in the
    published IR-SE networks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = narrowed(channels)
        self.gate = nn.Sequential(
            nn.Linear(channels, narrow, bias=False),
            nn.ReLU(),
            nn.Linear(narrow, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.gate(x_BCHW.mean((2, 3)))[..., None, None]


class SK(nn.Module):
    """a * U1 + (1 - a) * U2, U1 and U2 two views of x, a a softmax over the two a channel.

    Selective kernels, arXiv:1903.06586, equations 1 to 6 with r = 16, L = 32. There the unit
    replaces a 3x3 convolution; as an addition its views are depth-wise: 3x3, and 3x3 of dilation
    2 (5x5). Each ends in its BN without the paper's ReLU: a branch that can only add would make
    the sums grow from unit to unit (arXiv:1603.05027, section 4.1, "ReLU before addition")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(_depthwise(channels, dilation) for dilation in (1, 2))
        narrow = max(narrowed(channels), 32)
        self.squeeze = nn.Sequential(
            nn.Linear(channels, narrow, bias=False), nn.BatchNorm1d(narrow), nn.ReLU()
        )
        self.choose = nn.Linear(narrow, 2 * channels, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        views_BVCHW = torch.stack([view(x_BCHW) for view in self.views], 1)
        z = self.squeeze(views_BVCHW.sum(1).mean((2, 3)))
        shares_BVC = self.choose(z).unflatten(1, (2, -1)).softmax(1)
        return (views_BVCHW * shares_BVC[..., None, None]).sum(1)


def _depthwise(channels: int, dilation: int) -> nn.Module:
    conv = nn.Conv2d(
        channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


class CBAM(nn.Module):
    """z = x * sigmoid(mlp(mean x) + mlp(max x)), then z * sigmoid(f7x7([max z, mean z])).

    Convolutional block attention, arXiv:1807.06521, equations 1 to 3 with r = 16: a gate a
    channel, from its mean and maximum over positions, then one a position, from the mean and
    maximum over channels. The 7x7 convolution has a BN, as in the published code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = narrowed(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels)
        )
        self.f7x7 = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        channel_BC = self.mlp(x_BCHW.mean((2, 3))) + self.mlp(x_BCHW.amax((2, 3)))
        z = x_BCHW * torch.sigmoid(channel_BC)[..., None, None]
        summary_B2HW = torch.cat([z.amax(1, keepdim=True), z.mean(1, keepdim=True)], 1)
        return z * torch.sigmoid(self.f7x7(summary_B2HW))


class BAM(nn.Module):
    """x * (1 + sigmoid(Mc(x) * Ms(x))), Mc one number a channel, Ms one a position.

    Bottleneck attention, arXiv:1807.06514, equations 1 to 4 with r = 16, dilation 4. Equation 2
    adds Mc and Ms, and 3 and 4 end in a BN; the published code multiplies them and does not. The
    paper has one module between two stages, ECACFace's Table 3 puts it into the units."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = narrowed(channels)
        self.channel = nn.Sequential(
            nn.Linear(channels, narrow),
            nn.BatchNorm1d(narrow),
            nn.ReLU(),
            nn.Linear(narrow, channels),
        )
        self.spatial = nn.Sequential(
            *_biased(channels, narrow, 1),
            *_biased(narrow, narrow, 3, dilation=4),
            *_biased(narrow, narrow, 3, dilation=4),
            nn.Conv2d(narrow, 1, 1),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        channel_BC11 = self.channel(x_BCHW.mean((2, 3)))[..., None, None]
        return x_BCHW * (1 + torch.sigmoid(channel_BC11 * self.spatial(x_BCHW)))


def _biased(i: int, o: int, kernel: int, *, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(i, o, kernel, padding=kernel // 2 * dilation, dilation=dilation)
    return [conv, nn.BatchNorm2d(o), nn.ReLU()]


class SGE(nn.Module):
    """x * sigmoid(w t + b), t the likeness of a position to its group's mean, standardised.

    Spatial group-wise enhancement, arXiv:1905.09646, section 3, with 64 groups of channels: per
    group, t = <x, mean x> a position, then (t - mean t) / (std t + 1e-5) over the positions, std
    the population's (the published code divides by the positions less one, which w takes up). At
    the start w = 0 and b = 1. Raises ValueError where the groups do not divide the channels."""

    GROUPS = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % self.GROUPS:
            raise ValueError(f"{channels} channels are not a multiple of {self.GROUPS}")
        self.weight = nn.Parameter(torch.zeros(self.GROUPS, 1, 1))
        self.bias = nn.Parameter(torch.ones(self.GROUPS, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        groups_BGCHW = x_BCHW.unflatten(1, (self.GROUPS, -1))
        t = (groups_BGCHW * groups_BGCHW.mean((3, 4), keepdim=True)).sum(2)
        spread = t.std((2, 3), correction=0, keepdim=True) + 1e-5
        t = (t - t.mean((2, 3), keepdim=True)) / spread
        gate_BGHW = torch.sigmoid(t * self.weight + self.bias)
        return (groups_BGCHW * gate_BGHW[:, :, None]).flatten(1, 2)
