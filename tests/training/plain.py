"""Layers written out in plain sums, in float64, that networks are compared with; and what the tests
of several networks need."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def parameters(network: nn.Module) -> int:
    """How many numbers the network's parameters hold."""
    return sum(p.numel() for p in network.parameters())


def stirred(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64, in evaluation, every parameter and statistic away from its start; the
    weights as small as keeps a sigmoid or a softmax behind them from being full."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() and not name.endswith("shifts"):
                away = torch.rand(tensor.shape, generator=generator)
                if tensor.dim() > 1:
                    tensor.copy_((away - 0.5) * 3 / tensor[0].numel() ** 0.5)
                else:
                    tensor.copy_(away + 0.5 if name.endswith("running_var") else away - 0.4)
    return module.double().eval()


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """What a BN answers in evaluation, over axis 1."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (x - norm.running_mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)


def bent(prelu: nn.PReLU, x: Tensor) -> Tensor:
    """x where it is positive, its channel's slope times x elsewhere."""
    return torch.where(x > 0, x, x * prelu.weight.view(1, -1, 1, 1))


def convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of stride 1 that keeps the size: the sum of its taps' shifted maps."""
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    height, width = x.shape[2:]
    reach = kernel // 2 * dilation
    padded = x.new_zeros(*x.shape[:2], height + 2 * reach, width + 2 * reach)
    padded[:, :, reach : reach + height, reach : reach + width] = x
    out = 0
    for i in range(kernel):
        for j in range(kernel):
            shifted = padded[:, :, i * dilation :, j * dilation :][:, :, :height, :width]
            tap = conv.weight[:, :, i, j]
            depthwise = conv.groups > 1
            out = out + (
                shifted * tap.view(1, -1, 1, 1)
                if depthwise
                else torch.einsum("oi,bihw->bohw", tap, shifted)
            )
    return out if conv.bias is None else out + conv.bias.view(1, -1, 1, 1)


def mixed(x_BCHW: Tensor, order_N: Tensor) -> Tensor:
    """The map with its positions in another order."""
    return x_BCHW.flatten(2)[:, :, order_N].view(x_BCHW.shape)


def assert_rows_stand_alone(network: nn.Module, width: int) -> None:
    """The directions of two crops' embeddings, (2, width), are those of each crop alone."""
    network.eval()
    crops = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        together, alone = network(crops), network(crops[1:])
    assert together.shape == (2, width)
    torch.testing.assert_close(F.normalize(together[1:]), F.normalize(alone), rtol=0, atol=1e-5)


def spreads(network: nn.Module, fans: Callable[[int, int], float]) -> list[float]:
    """Each 3x3 convolution's standard deviation times the root of fans(fan in, fan out) / 2."""
    found = []
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.in_channels >= 64:
            half = fans(9 * conv.in_channels, 9 * conv.out_channels) / 2
            found.append(conv.weight.std().item() * math.sqrt(half))
    return found
