"""ECACFace's networks, MobileFaceNet and IR: ESCA attention in every bottleneck (the loss,
CurricularFace, is in losses.py).

The paper's Table 1 puts the attention into each bottleneck, 15 of MobileFaceNet, 24 of IR_50, 49 of
IR_101; where it stands inside one is read as the slot of SE in IR-SE: after the last normalisation
of the residual branch, before the sum. Shapes: B images, C channels, H x W positions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.attention import BAM, CBAM, SE, SGE, SK
from training.networks.ir import (
    EMBEDDING,
    UNITS_24,
    UNITS_49,
    IRNet,
    Style,
    conv_norm,
    kaiming,
    one_of,
)
from training.networks.sranet import sra


class ECA(nn.Module):
    """Efficient channel attention: a gate a channel, from a 1-D convolution over the pooled
    channels.

    Kernel size odd(|log2(C) / 2 + 1/2|), no bias (ECA-Net, arXiv:1910.03151, equation 12).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        t = int((math.log2(channels) + 1) / 2)
        k = t if t % 2 else t + 1
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def gate(self, x_BCHW: Tensor) -> Tensor:
        """The gates (B, C, 1, 1) in (0, 1)."""
        pooled = x_BCHW.mean((2, 3))
        return torch.sigmoid(self.conv(pooled[:, None]))[:, 0, :, None, None]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.gate(x_BCHW)


class ESCA(nn.Module):
    """z = ECA(x), then z * sigmoid(f2([AvgPool3x3(z), MaxPool3x3(z)])): ECACFace, equations 1 and
    2.

    Pools have stride 1 and zero padding that the mean counts; f2 is a 3x3 convolution 2C -> sa_out
    without bias: one weight a position (sa_out = 1), or, the other reading, one a position and
    channel (sa_out = C, 18 C^2 weights). One weight is computed without the concatenated 2C maps: a
    3x3 convolution to one channel is a 1x1 convolution to nine (one a tap) followed by nine shifts,
    and the mean, being linear, can be taken of the nine maps in place of the C. The result is the
    same, border included. In a new network f2 is zero, ESCA half its ECA (`initialise`). Raises
    ValueError for another sa_out."""

    def __init__(self, channels: int, sa_out: int = 1) -> None:
        super().__init__()
        one_of("sa_out", sa_out, (1, channels))
        self.eca = ECA(channels)
        self.f2 = nn.Conv2d(2 * channels, sa_out, 3, padding=1, bias=False)
        # Map 3i + j of nine, shifted by (1 - i, 1 - j); their sum, zeros coming in from outside.
        self.register_buffer("shifts", torch.eye(9).view(1, 9, 3, 3), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        z = self.eca(x_BCHW)
        if self.f2.out_channels > 1:
            pools = F.avg_pool2d(z, 3, 1, 1), F.max_pool2d(z, 3, 1, 1)
            return z * torch.sigmoid(self.f2(torch.cat(pools, 1)))
        mean_taps, max_taps = self.f2.weight[0].flatten(1).t()[..., None, None].chunk(2, dim=1)
        maps_B9HW = F.avg_pool2d(F.conv2d(z, mean_taps), 3, 1, 1)
        maps_B9HW = maps_B9HW + F.conv2d(F.max_pool2d(z, 3, 1, 1), max_taps)
        return z * torch.sigmoid(F.conv2d(maps_B9HW, self.shifts, padding=1))


def initialise(module: nn.Module) -> None:
    """kaiming's weights, but ESCA's f2 zero; for `apply`.

    The paper does not say how f2 begins. By its fan out, nine, it is so large that the gates are
    open or shut from the start and stay so, and the gradient grows 26-fold through
    MobileFaceNet's fifteen."""
    kaiming(module)
    if isinstance(module, ESCA):  # comes after its parts
        nn.init.zeros_(module.f2.weight)


# The first eight are Table 3's, in its order. esca_wide is ESCA's other reading, sra SRANet's light
# pair in the same slot.
ATTENTION = {
    "none": lambda channels: nn.Identity(),
    "se": SE,
    "sk": SK,
    "cbam": CBAM,
    "bam": BAM,
    "sge": SGE,
    "eca": ECA,
    "esca": ESCA,
    "esca_wide": lambda channels: ESCA(channels, sa_out=channels),
    "sra": sra,
}


class Bottleneck(nn.Module):
    """1x1 expand, 3x3 depth-wise, 1x1 project (linear), attention; the input added where shapes
    agree."""

    def __init__(self, i: int, o: int, hidden: int, stride: int, attention: str) -> None:
        super().__init__()
        self.residual = stride == 1 and i == o
        self.branch = nn.Sequential(
            *conv_norm(i, hidden, 1),
            nn.PReLU(hidden),
            *conv_norm(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.PReLU(hidden),
            *conv_norm(hidden, o, 1),
            ATTENTION[attention](o),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.branch(x_BCHW)
        return x_BCHW + y if self.residual else y


# (in, out, hidden, stride, times): MobileFaceNets, arXiv:1804.07573, table 1; 15 bottlenecks in
# all.
STAGES = (
    (64, 64, 128, 2, 1),
    (64, 64, 128, 1, 4),
    (64, 128, 256, 2, 1),
    (128, 128, 256, 1, 6),
    (128, 128, 512, 2, 1),
    (128, 128, 256, 1, 2),
)


class MobileFaceNet(nn.Module):
    """Crops float32 (B, 3, size, size), (p - 127.5) / 127.5 of RGB, to embeddings (B, embedding).

    The embeddings are not normalised. 1,229,377 parameters with ESCA and 512 wide. size: pixels,
    112 in the paper; the last map is a sixteenth of it. Raises ValueError for an attention that
    ATTENTION does not name."""

    def __init__(
        self, attention: str = "esca", embedding: int = EMBEDDING, *, size: int = 112
    ) -> None:
        super().__init__()
        one_of("attention", attention, ATTENTION)
        last = math.ceil(size / 16)
        self.stem = nn.Sequential(
            *conv_norm(3, 64, 3, stride=2),
            nn.PReLU(64),
            *conv_norm(64, 64, 3, groups=64),
            nn.PReLU(64),
        )
        self.bottlenecks = nn.Sequential(
            *(
                Bottleneck(i, o, hidden, stride, attention)
                for i, o, hidden, stride, times in STAGES
                for _ in range(times)
            )
        )
        self.head = nn.Sequential(
            *conv_norm(128, 512, 1),
            nn.PReLU(512),
            nn.Conv2d(512, 512, last, groups=512, bias=False),  # GDC: a weighted mean of the map
            nn.BatchNorm2d(512),
            nn.Flatten(),
            nn.Linear(512, embedding, bias=False),
            nn.BatchNorm1d(embedding),
        )
        self.apply(initialise)

    def forward(self, crops_BCHW: Tensor) -> Tensor:
        return self.head(self.bottlenecks(self.stem(crops_BCHW)))


UNITS = {50: UNITS_24, 101: UNITS_49}


def _without_scale(embedding: int) -> nn.Module:
    norm = nn.BatchNorm1d(embedding)
    norm.weight.requires_grad_(False)
    return norm


# "curricular" is the network of CurricularFace's published code, which the paper follows (its last
# BN has no parameters); "insightface" that of ArcFace's (its last BN's weight stays at one).
STYLES = {
    "curricular": Style(
        middle_norm=False,
        project=False,
        dropout=0.4,
        last_norm=lambda embedding: nn.BatchNorm1d(embedding, affine=False),
    ),
    "insightface": Style(middle_norm=True, project=True, dropout=0.0, last_norm=_without_scale),
}


class IR(IRNet):
    """Crops as MobileFaceNet's to embeddings (B, embedding), not normalised.

    depth: 50 (24 bottlenecks) or 101 (49). 43,573,952 and 65,128,768 parameters without attention,
    in CurricularFace's style. Raises ValueError for an unknown depth, attention or style."""

    def __init__(
        self,
        depth: int = 50,
        attention: str = "esca",
        embedding: int = EMBEDDING,
        style: str = "curricular",
    ) -> None:
        units = UNITS[one_of("depth", depth, UNITS)]
        module = ATTENTION[one_of("attention", attention, ATTENTION)]
        super().__init__(units, module, STYLES[one_of("style", style, STYLES)], embedding)
        self.apply(initialise)
