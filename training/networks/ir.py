"""The IR network, a ResNet for faces, on which ECACFace and SRANet both stand, and what more than
one network is made of.

Units of BN-conv-(BN)-PReLU-conv-BN without pooling in front, so that an embedding is one linear map
of the whole 512x7x7 map; an attention, if any, ends each residual branch. Shapes: B images, C
channels, H x W positions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

EMBEDDING = 512
WIDTHS = (64, 128, 256, 512)  # of the four stages; each begins by halving the map: 112 to 7
UNITS_24 = (3, 4, 14, 3)  # units a stage of "50": 49 convolutions and the linear map
UNITS_49 = (3, 13, 30, 3)  # of "100", in ECACFace "101"

Attention = Callable[[int], nn.Module]  # from the channels to a module that keeps a map's shape
T = TypeVar("T")


def one_of(what: str, value: T, allowed: Iterable[T]) -> T:
    """The value, if it is allowed; else ValueError names what it is, the value and the allowed."""
    known = list(allowed)
    if value not in known:
        raise ValueError(f"{what} {value!r} is not one of {', '.join(map(repr, known))}")
    return value


def conv_norm(i: int, o: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias that keeps the map's size (divided by the stride), and its BN."""
    conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(o)]


def kaiming(module: nn.Module) -> None:
    """Normal weights by the fan out, biases zero, in convolutions and linear maps; for `apply`."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class Style:
    """Where the published networks of these units differ.

    middle_norm: a BN between a unit's first convolution and its PReLU. project: the first unit of
    the first stage, whose widths agree, also has a convolution on its shortcut. dropout: the share
    of the last map dropped in training. last_norm: the embedding's BN, by its width."""

    middle_norm: bool
    project: bool
    dropout: float
    last_norm: Callable[[int], nn.Module]


class Unit(nn.Module):
    """Two 3x3 convolutions, the stride in the second, and the attention, beside a shortcut; the
    sum of both. (B, i, H, W) to (B, o, H / stride, W / stride), rounded up."""

    def __init__(self, i: int, o: int, stride: int, attention: Attention, style: Style) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(i),
            nn.Conv2d(i, o, 3, padding=1, bias=False),
            *([nn.BatchNorm2d(o)] if style.middle_norm else []),
            nn.PReLU(o),
            *conv_norm(o, o, 3, stride=stride),
            attention(o),
        )
        self.shortcut = _shortcut(i, o, stride, style)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.branch(x_BCHW) + self.shortcut(x_BCHW)


def _shortcut(i: int, o: int, stride: int, style: Style) -> nn.Module:
    if i == o and stride == 1:
        return nn.Identity()
    if i == o and not style.project:
        return nn.MaxPool2d(1, stride)  # every second row and column
    return nn.Sequential(*conv_norm(i, o, 1, stride=stride))


class IRNet(nn.Module):
    """Crops float32 (B, 3, 112, 112) to embeddings (B, embedding), not normalised.

    units: how many units each of the four stages has. Weights are torch's defaults: the paper's
    class applies its own."""

    def __init__(
        self, units: tuple[int, ...], attention: Attention, style: Style, embedding: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, 64, 3), nn.PReLU(64))
        self.units = nn.Sequential(
            *(
                Unit(o if n else i, o, 1 if n else 2, attention, style)
                for i, o, times in zip((64, *WIDTHS), WIDTHS, units, strict=False)
                for n in range(times)
            )
        )
        self.head = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(style.dropout),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, embedding),
            style.last_norm(embedding),
        )

    def forward(self, crops_BCHW: Tensor) -> Tensor:
        return self.head(self.units(self.stem(crops_BCHW)))
