"""ECACFace's MobileFaceNet: ESCA attention in every bottleneck (the loss, CurricularFace, is in
losses.py).

The paper's Table 1 puts the attention into each of the 15 bottlenecks; where it stands inside one
is read as the slot of SE in IR-SE: after the last normalisation of the residual branch, before the
sum. Shapes: B images, C channels, H x W positions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING = 512


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

    Pools have stride 1 and zero padding that the mean counts; f2 is a 3x3 convolution 2C -> 1
    without bias, one weight a position. It is computed without the concatenated 2C maps: a 3x3
    convolution to one channel is a 1x1 convolution to nine (one a tap) followed by nine shifts, and
    the mean, being linear, can be taken of the nine maps in place of the C. The result is the same,
    border included."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eca = ECA(channels)
        self.f2 = nn.Conv2d(2 * channels, 1, 3, padding=1, bias=False)
        # Map 3i + j of nine, shifted by (1 - i, 1 - j); their sum, zeros coming in from outside.
        self.register_buffer("shifts", torch.eye(9).view(1, 9, 3, 3), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        z = self.eca(x_BCHW)
        mean_taps, max_taps = self.f2.weight[0].flatten(1).t()[..., None, None].chunk(2, dim=1)
        maps_B9HW = F.avg_pool2d(F.conv2d(z, mean_taps), 3, 1, 1)
        maps_B9HW = maps_B9HW + F.conv2d(F.max_pool2d(z, 3, 1, 1), max_taps)
        return z * torch.sigmoid(F.conv2d(maps_B9HW, self.shifts, padding=1))


ATTENTION = {"none": lambda channels: nn.Identity(), "eca": ECA, "esca": ESCA}


def _conv(i: int, o: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(o)]


class Bottleneck(nn.Module):
    """1x1 expand, 3x3 depth-wise, 1x1 project (linear), attention; the input added where shapes
    agree."""

    def __init__(self, i: int, o: int, hidden: int, stride: int, attention: str) -> None:
        super().__init__()
        self.residual = stride == 1 and i == o
        self.branch = nn.Sequential(
            *_conv(i, hidden, 1),
            nn.PReLU(hidden),
            *_conv(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.PReLU(hidden),
            *_conv(hidden, o, 1),
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
    """Crops float32 (B, 3, 112, 112), (p - 127.5) / 127.5 of RGB, to embeddings (B, embedding).

    The embeddings are not normalised. 1,229,377 parameters with ESCA and 512 wide. Raises KeyError
    for an unknown attention (none, eca, esca)."""

    def __init__(self, attention: str = "esca", embedding: int = EMBEDDING) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv(3, 64, 3, stride=2), nn.PReLU(64), *_conv(64, 64, 3, groups=64), nn.PReLU(64)
        )
        self.bottlenecks = nn.Sequential(
            *(
                Bottleneck(i, o, hidden, stride, attention)
                for i, o, hidden, stride, times in STAGES
                for _ in range(times)
            )
        )
        self.head = nn.Sequential(
            *_conv(128, 512, 1),
            nn.PReLU(512),
            nn.Conv2d(512, 512, 7, groups=512, bias=False),  # GDC: a weighted mean of the 7x7 map
            nn.BatchNorm2d(512),
            nn.Flatten(),
            nn.Linear(512, embedding, bias=False),
            nn.BatchNorm1d(embedding),
        )
        self.apply(_initialise)

    def forward(self, crops_BCHW: Tensor) -> Tensor:
        return self.head(self.bottlenecks(self.stem(crops_BCHW)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
