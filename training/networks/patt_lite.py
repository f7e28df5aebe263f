"""PAtt-Lite (seed paper 004, IEEE Access 2024): a truncated MobileNetV1, patch extraction and an
attention classifier, for facial expressions.

The published network's attention runs over the batch: its layer takes the (B, 32) descriptors of B
faces for one sequence, so a face's answer depends on the faces beside it, and test batches of one
class each made the paper's figures. Here attention stays within one face, over its patches; the
published form is kept as "batch", to show what it does. ImageNet's weights come by
mobilenet.read_mobilenet. Shapes: B images, C channels, T tokens (patches) of a face."""

import warnings
from typing import Self

import torch
from torch import Tensor, nn

from training.networks.ir import one_of
from training.networks.mobilenet import STRIDE, mobilenet

ATTENTION = ("tokens", "none", "batch")
# Table 5's kernels, a patch a kernel: P pads a map of 14 to 16, OP to 15, NP not at all.
KERNELS = {"P4": 4, "P8": 8, "NP7": 7, "OP3": 3, "OP5": 5}
PATCHES = ("extraction", "gate", "none", *KERNELS)
WIDTH, DESCRIPTOR = 256, 32


class Gate(nn.Module):
    """Patches (B, C, H, W), each multiplied by a weight of its own in (0, 1).

    Our reading of table 6's "patch attention", which the paper does not define: a 1x1 convolution
    to one channel and a sigmoid, in place of the extraction's last convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, 1, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * torch.sigmoid(self.weigh(x_BCHW))


def attend(x_BTC: Tensor, scale: Tensor) -> Tensor:
    """softmax(scale x x') x over T: query, key and value are one, as in the published network."""
    return torch.softmax(scale * x_BTC @ x_BTC.mT, dim=-1) @ x_BTC


class PAttLite(nn.Module):
    """Images float32 (B, 3, size, size), x / 127.5 - 1 of RGB, to logits (B, classes).

    attention: over a face's own "tokens", "none", or over the "batch" as published, which warns.
    patches: "extraction" (the paper's block), "none" (table 4: every position of the map is a
    token), "gate" (table 6) or one of KERNELS (table 5's baseline block). cut: the backbone's
    last layer, one of mobilenet.CUTS (table 5).

    size: a multiple of 16, 224 in the paper. The map has size / 16 positions a side, which the
    extraction turns into 2 x 2 patches: at 144 to 256 pixels by its two strides (4, then 2), at 80
    to 128 by a stride of 4, then 1, since one patch would leave attention nothing to weigh; above
    256 into 3 x 3 and more. 1,093,000 parameters and 9,664 statistics with 7 classes. Raises
    ValueError for an argument out of its range, for a size of fewer than 2 x 2 patches, and for
    images of another size."""

    def __init__(
        self,
        classes: int = 8,
        *,
        attention: str = "tokens",
        patches: str = "extraction",
        cut: str = "dw_9",
        size: int = 224,
    ) -> None:
        super().__init__()
        one_of("attention", attention, ATTENTION)
        one_of("patches", patches, PATCHES)
        if size % STRIDE:
            raise ValueError(f"size {size} is no multiple of {STRIDE}, the backbone's stride")
        if attention == "batch":
            warnings.warn(
                "attention over the batch: a face's scores depend on the faces beside it; for "
                "showing that defect, not for answers about a face",
                stacklevel=2,
            )
        self.size, self.attention = size, attention
        self.frozen = False
        self.backbone = mobilenet(cut)
        channels = 256 if cut == "dw_6" else 512
        self.patches = _patches(patches, channels, size)
        width = channels if patches == "none" else WIDTH
        # The first stage of the published training drops after pooling only; see freeze.
        self.drop_maps, self.drop, self.drop_last = nn.Dropout2d(0), nn.Dropout(0.1), nn.Dropout(0)
        self.describe = nn.Sequential(
            nn.Linear(width, DESCRIPTOR),
            nn.ReLU(),
            nn.BatchNorm1d(DESCRIPTOR, eps=1e-3, momentum=0.01),
        )
        if attention != "none":
            self.scale = nn.Parameter(torch.ones(()))
        self.classify = nn.Linear(DESCRIPTOR, classes)
        self.apply(_initialise)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if images_BCHW.shape[2:] != (self.size, self.size):
            h, w = images_BCHW.shape[2:]
            raise ValueError(f"images are {h} x {w}; this network is for {self.size} x {self.size}")
        map_BCHW = self.drop_maps(self.patches(self.backbone(images_BCHW)))
        tokens_BTC = map_BCHW.flatten(2).mT
        if self.attention != "tokens":
            tokens_BTC = tokens_BTC.mean(1, keepdim=True)
        described = self.describe(self.drop(tokens_BTC).flatten(0, 1))
        x_BTC = described.unflatten(0, (-1, tokens_BTC.shape[1]))
        if self.attention == "tokens":
            x_BTC = attend(x_BTC, self.scale)
        elif self.attention == "batch":
            x_BTC = attend(x_BTC.transpose(0, 1), self.scale).transpose(0, 1)
        return self.classify(self.drop_last(x_BTC.mean(1)))

    def train(self, mode: bool = True) -> Self:
        """As every module; a frozen backbone's batch norm stays in inference mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self


def freeze(network: PAttLite, stage: int, *, last: int = 0) -> None:
    """Prepares the network for stage 1 or 2 of the paper's training.

    In both, the backbone's batch norm is left as it is, statistics and weights. Stage 1 freezes the
    convolutions too and drops 0.1 after pooling; stage 2 lets the convolutions among the backbone's
    `last` layers learn, counted as Keras counts (paper: 40 for CK+, 46 for FER2013, 49 for FERPlus)
    and drops 0.2 of whole maps, after pooling and before the classifier. Only what has
    requires_grad belongs into the stage's optimizer; a state dict does not keep the stage. Raises
    ValueError for another stage and for more layers than there are: the paper's 59 for RAF-DB are
    more than 58, and its published code, slicing from -1, then lets none learn."""
    one_of("stage", stage, (1, 2))
    layers = list(network.backbone)
    if not 0 <= last <= len(layers) or (stage == 1 and last):
        limit = 0 if stage == 1 else len(layers)
        raise ValueError(f"last {last}: in stage {stage} 0 to {limit} layers can learn")
    network.frozen = True
    network.train(network.training)
    for place, layer in enumerate(layers):
        learns = isinstance(layer, nn.Conv2d) and place >= len(layers) - last
        layer.requires_grad_(learns)
    network.drop.p = 0.1 if stage == 1 else 0.2
    network.drop_maps.p = network.drop_last.p = 0.0 if stage == 1 else 0.2


def _patches(kind: str, channels: int, size: int) -> nn.Sequential:
    """From the map (B, channels, side, side), side = size / 16, to patches (B, 256, n, n).

    Kind "none" leaves the map. Raises ValueError where n would be 1."""
    side = size // STRIDE
    last = [nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU()]
    if kind == "none":
        layers, n = [], side
    elif kind in KERNELS:
        k = KERNELS[kind]
        pad, n = _same(side, k, k)
        layers = [pad, nn.Conv2d(channels, WIDTH, k, k), nn.ReLU(), *last]
    else:
        first, cells = _separable(channels, side, kernel=4, stride=4)
        second, n = _separable(WIDTH, cells, kernel=2, stride=2 if cells > 2 else 1)
        layers = [*first, *second, *([Gate(WIDTH)] if kind == "gate" else last)]
    if n < 2:
        raise ValueError(
            f"size {size}: its map of {side} x {side} gives {kind} one patch; 2 x 2 are the least"
        )
    return nn.Sequential(*layers)


def _separable(i: int, side: int, *, kernel: int, stride: int) -> tuple[list[nn.Module], int]:
    """Keras' SeparableConv2D to 256 channels with ReLU, "same", and the side of what it gives."""
    pad, o = _same(side, kernel, stride)
    depthwise = nn.Conv2d(i, i, kernel, stride, groups=i, bias=False)
    return [pad, depthwise, nn.Conv2d(i, WIDTH, 1), nn.ReLU()], o


def _same(side: int, kernel: int, stride: int) -> tuple[nn.Module, int]:
    """TensorFlow's "SAME" padding, the odd pixel after, and the side of the convolution's map."""
    o = -(-side // stride)
    total = max((o - 1) * stride + kernel - side, 0)
    before, after = total // 2, total - total // 2
    return nn.ZeroPad2d((before, after, before, after)), o


def _initialise(module: nn.Module) -> None:
    """Keras' start: Glorot's uniform weights, biases zero."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
