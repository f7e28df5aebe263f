"""HSANet (seed paper 000): ResNet-50 whose last stage pays attention, for few photographs of few
people.

In a bottleneck the 3x3 convolution gives way to multi-head self-attention over the positions, and
what the first 1x1 convolution gave runs past the attention on an inner identity path: as it is (x),
or through a 3x3 convolution, the paper's improved block. The paper's text is partly illegible; what
it leaves open is read as in BoTNet (arXiv:2101.11605), and docs/sizes.md says what that does to the
sizes. Shapes: B images, C channels, H x W positions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.ir import conv_norm, one_of

BLOCKS = (3, 4, 6, 3)  # of ResNet-50's four stages
EXPANSION = 4
KERNELS = {"x": 0, "3x3": 3, "1x1": 1}  # of the inner identity; 0: u itself


class PositionalAttention(nn.Module):
    """softmax(q (k + P)) v in each head over all positions: content and place in one score.

    The paper's equation 2 with its position term, in BoTNet's form: q, k, v are 1x1 convolutions
    with bias; P is the sum of a table a row and a table a column, (heads, C / heads, H, 1) and
    (heads, C / heads, 1, W). scale divides the scores by sqrt(C / heads). Maps (B, C, side, side)
    to the same shape.
    """

    def __init__(self, channels: int, side: int, heads: int, scale: bool) -> None:
        super().__init__()
        self.heads = heads
        each = channels // heads
        self.scale = each**-0.5 if scale else 1.0
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.rows = nn.Parameter(torch.empty(heads, each, side, 1))
        self.columns = nn.Parameter(torch.empty(heads, each, 1, side))
        for table in (self.rows, self.columns):
            nn.init.normal_(table, std=each**-0.5)

    def forward(self, u_BCHW: Tensor) -> Tensor:
        place_hdN = (self.rows + self.columns).flatten(2)
        query, key, value = (
            layer(u_BCHW).flatten(2).unflatten(1, (self.heads, -1))
            for layer in (self.query, self.key, self.value)
        )
        attended_BhNd = F.scaled_dot_product_attention(
            query.mT, (key + place_hdN).mT, value.mT, scale=self.scale
        )
        return attended_BhNd.mT.flatten(1, 2).unflatten(2, u_BCHW.shape[2:])


class Hybrid(nn.Module):
    """attention(u) + identity(u), then 2 x 2 means where the block has stride 2.

    identity: x (u itself), 3x3 or 1x1 (convolution and batch norm). Attention and identity see the
    incoming resolution, side x side; an odd side is halved upwards, as a strided convolution does.
    """

    def __init__(
        self, channels: int, stride: int, side: int, *, identity: str, heads: int, scale: bool
    ) -> None:
        super().__init__()
        self.attention = PositionalAttention(channels, side, heads, scale)
        kernel = KERNELS[identity]
        self.identity = nn.Sequential(*conv_norm(channels, channels, kernel) if kernel else [])
        self.pool = nn.Sequential(*[nn.AvgPool2d(2, ceil_mode=True)] if stride == 2 else [])

    def forward(self, u_BCHW: Tensor) -> Tensor:
        return self.pool(self.attention(u_BCHW) + self.identity(u_BCHW))


class Bottleneck(nn.Module):
    """u = ReLU(BN(conv1x1(x))), h = middle(u), ReLU(BN(conv1x1(ReLU(BN(h)))) + shortcut(x)).

    middle: from hidden to hidden channels, carrying the stride. Without inner_relu h is only
    normalised. An empty nn.Sequential is the shortcut where shapes agree (as the inner identity of
    HSANet(x)): a layer that does nothing would be counted as an output by docs/sizes.md's unit.
    """

    def __init__(
        self, i: int, hidden: int, stride: int, middle: nn.Module, inner_relu: bool = True
    ) -> None:
        super().__init__()
        o = hidden * EXPANSION
        self.branch = nn.Sequential(
            *conv_norm(i, hidden, 1),
            nn.ReLU(),
            middle,
            nn.BatchNorm2d(hidden),
            *([nn.ReLU()] if inner_relu else []),
            *conv_norm(hidden, o, 1),
        )
        same = stride == 1 and i == o
        self.shortcut = nn.Sequential(*[] if same else conv_norm(i, o, 1, stride=stride))
        self.relu = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.relu(self.branch(x_BCHW) + self.shortcut(x_BCHW))


# (stage 1 to 4, block within it, hidden channels, stride) -> what stands in a bottleneck's middle.
Middle = Callable[[int, int, int, int], nn.Module]


def _convolution(_stage: int, _block: int, hidden: int, stride: int) -> nn.Module:
    return nn.Conv2d(hidden, hidden, 3, stride, 1, bias=False)


def _layers(
    classes: int, width: int, middle: Middle, inner_relu: bool = True
) -> tuple[nn.Sequential, nn.Linear]:
    """ResNet-50 to its last map's mean (B, 32 width, 1, 1), and the classifier.

    The stride is on a bottleneck's middle."""
    layers = [*conv_norm(3, width, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = width
    for stage, blocks in enumerate(BLOCKS, 1):
        hidden = width << (stage - 1)
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            core = middle(stage, block, hidden, stride)
            layers.append(Bottleneck(channels, hidden, stride, core, inner_relu))
            channels = hidden * EXPANSION
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
    body.apply(_initialise)
    return body, nn.Linear(channels, classes)


class ResNet50(nn.Module):
    """Images float32 (B, 3, H, W), any H and W, to logits (B, classes): HSANet's baseline.

    He et al. 2016 (arXiv:1512.03385) with the stride on the 3x3 convolution. width: channels of the
    stem, 64 in the paper; hidden channels of the stages are 1, 2, 4 and 8 times as many. 23,561,306
    parameters with 26 classes."""

    def __init__(self, classes: int = 26, *, width: int = 64) -> None:
        super().__init__()
        self.body, self.classify = _layers(classes, width, _convolution)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.classify(self.body(images_BCHW).flatten(1))


class HSANet(nn.Module):
    """Images float32 (B, 3, size, size) to logits (B, classes).

    identity: the inner path, x, 3x3 (the paper's improved block) or 1x1 (the other reading of its
    conclusion). size: pixels; the tables of positions belong to it. stages: which of 1 to 4 attend,
    (4,) being read into the paper. inner_relu: False reads its "ReLU moved to the sum" as none
    between the two. scale: its equation 2 divides by sqrt(d). width as in ResNet50. 18,875,994 (x),
    25,956,954 (3x3) and 19,665,498 (1x1) parameters by default. Raises ValueError for an argument
    out of its range, and for an image of another size than the network was built for."""

    def __init__(
        self,
        identity: str = "3x3",
        classes: int = 26,
        *,
        size: int = 224,
        stages: tuple[int, ...] = (4,),
        heads: int = 4,
        inner_relu: bool = True,
        scale: bool = True,
        width: int = 64,
    ) -> None:
        super().__init__()
        one_of("identity", identity, KERNELS)
        for stage in stages:
            one_of("stage", stage, (1, 2, 3, 4))
        if size < 1:
            raise ValueError(f"size {size}: an image has at least one pixel")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide width {width}")
        self.size = size

        def middle(stage: int, block: int, hidden: int, stride: int) -> nn.Module:
            if stage not in stages:
                return _convolution(stage, block, hidden, stride)
            side = math.ceil(size / (2 ** (stage + 1) // stride))
            options = {"identity": identity, "heads": heads, "scale": scale}
            return Hybrid(hidden, stride, side, **options)

        self.body, self.classify = _layers(classes, width, middle, inner_relu)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if images_BCHW.shape[2:] != (self.size, self.size):
            h, w = images_BCHW.shape[2:]
            raise ValueError(
                f"images are {h} x {w}; this HSANet's positions are those of {self.size} x "
                f"{self.size} (build it with size=)"
            )
        return self.classify(self.body(images_BCHW).flatten(1))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
