"""A faster view of a network for training on a CPU: normalisation with PReLU, depth-wise
convolution and ESCA as one compiled step each, on float32 or bfloat16 maps.

The view shares every parameter and buffer with the network, so the network is what is saved,
evaluated and exported; it never knows. Needs a C++ compiler; the first use compiles for a minute.
"""

import copy
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.cpp_extension import load

from training.networks.ecacface import ESCA

LANES = 16  # maps of another number of channels are left to PyTorch


def fused_view(network: nn.Module) -> nn.Module:
    """The network with its BatchNorm2d (joined with the PReLU behind, if there is one), its 3x3
    depth-wise convolutions and its ESCA replaced.

    Only direct neighbours in an nn.Sequential are joined. For training steps alone: the view
    normalises by the batch whatever mode the network is in. Under torch.autocast with bfloat16 its
    maps are bfloat16, while parameters, statistics and gradients of parameters stay float32.
    """
    view = copy.copy(network)
    view._modules = {}
    norm: _NormPReLU | None = None
    for name, child in network.named_children():
        if norm is not None and isinstance(network, nn.Sequential) and isinstance(child, nn.PReLU):
            norm.prelu, norm = child, None
        elif isinstance(child, nn.BatchNorm2d) and child.num_features % LANES == 0:
            norm = view._modules[name] = _NormPReLU(child)
        elif isinstance(child, nn.Conv2d) and _is_depthwise(child):
            norm, view._modules[name] = None, _Depthwise(child)
        elif isinstance(child, ESCA) and child.f2.in_channels % (2 * LANES) == 0:
            norm, view._modules[name] = None, _ESCA(child)
        else:
            norm, view._modules[name] = None, fused_view(child)
    return view


def bfloat16_pays() -> bool:
    """Whether this CPU has matrix units for bfloat16 (AMX); without, float32 maps are as fast."""
    return bool(torch.cpu._is_amx_tile_supported())


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.in_channels % LANES == 0
        and (conv.kernel_size, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1))
        and conv.stride in ((1, 1), (2, 2))
        and conv.bias is None
    )


@cache
def _compiled() -> Any:
    folder = Path(__file__).parent / "compiled"
    sources = sorted(str(path) for path in folder.glob("*.cpp"))
    flags = ["-O3", "-march=native", "-fopenmp", "-ffast-math"]
    # PyTorch keeps what it built by name: another checkout, or a changed pass, is another one.
    told = [str(folder).encode(), *(path.read_bytes() for path in sorted(folder.iterdir()))]
    name = f"mien_maps_{hashlib.sha256(b''.join(told)).hexdigest()[:12]}"
    return load(name, sources, extra_cflags=flags, extra_ldflags=["-fopenmp"])


def _channels_last(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.contiguous(memory_format=torch.channels_last)


class _NormPReLU(nn.Module):
    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm, self.prelu = norm, None
        self.register_buffer("linear", torch.ones(norm.num_features), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        norm = self.norm
        slope = self.linear if self.prelu is None else self.prelu.weight
        norm.num_batches_tracked += 1
        return _NormPReLUStep.apply(x_BCHW, norm.weight, norm.bias, slope, norm)


class _NormPReLUStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, slope: Tensor, norm: Any
    ) -> Tensor:
        x = _channels_last(x)
        out, mean, invstd = _compiled().norm_prelu_forward(
            x, gamma, beta, slope, norm.running_mean, norm.running_var, norm.momentum, norm.eps
        )
        ctx.save_for_backward(x, gamma, beta, slope, mean, invstd)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (
            *_compiled().norm_prelu_backward(_channels_last(grad), *ctx.saved_tensors),
            None,
        )


class _Depthwise(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _DepthwiseStep.apply(x_BCHW, self.conv.weight, self.conv.stride[0])


class _DepthwiseStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        x = _channels_last(x)
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return _compiled().depthwise_forward(x, weight, stride)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_x, by_weight = _compiled().depthwise_backward(
            _channels_last(grad), *ctx.saved_tensors, ctx.stride
        )
        return by_x, by_weight, None


class _ESCA(nn.Module):
    def __init__(self, esca: ESCA) -> None:
        super().__init__()
        self.esca = esca

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _ESCAStep.apply(x_BCHW, self.esca.eca.conv.weight, self.esca.f2.weight)


class _ESCAStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eca: Tensor, f2: Tensor) -> Tensor:
        x = _channels_last(x)
        out, weights = _compiled().esca_forward(x, eca, f2)
        ctx.save_for_backward(x, eca, f2, weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(_compiled().esca_backward(_channels_last(grad), *ctx.saved_tensors))
