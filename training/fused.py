"""A faster view of a network for training on a CPU: normalisation and PReLU as one compiled step.

The view shares every parameter and buffer with the network, so the network is what is saved,
evaluated and exported; it never knows. Needs a C++ compiler; the first use compiles for a minute.
"""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.cpp_extension import load


def fused_view(network: nn.Module) -> nn.Module:
    """The network with each BatchNorm2d, and the PReLU behind it if there is one, replaced.

    Only direct neighbours in an nn.Sequential are joined. For training steps alone: the view
    normalises by the batch whatever mode the network is in.
    """
    view = copy.copy(network)
    view._modules = {}
    norm: _NormPReLU | None = None
    for name, child in network.named_children():
        if norm is not None and isinstance(network, nn.Sequential) and isinstance(child, nn.PReLU):
            norm.prelu, norm = child, None
        elif isinstance(child, nn.BatchNorm2d):
            norm = view._modules[name] = _NormPReLU(child)
        else:
            norm, view._modules[name] = None, fused_view(child)
    return view


@cache
def _compiled() -> Any:
    source = Path(__file__).with_suffix(".cpp")
    flags = ["-O3", "-march=native", "-fopenmp", "-ffast-math"]
    return load("mien_fused", [str(source)], extra_cflags=flags, extra_ldflags=["-fopenmp"])


class _NormPReLU(nn.Module):
    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm, self.prelu = norm, None
        self.register_buffer("linear", torch.ones(norm.num_features), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        norm = self.norm
        slope = self.linear if self.prelu is None else self.prelu.weight
        norm.num_batches_tracked += 1
        return _Step.apply(x_BCHW, norm.weight, norm.bias, slope, norm)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, slope: Tensor, norm: Any
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        out, mean, invstd = _compiled().forward(
            x, gamma, beta, slope, norm.running_mean, norm.running_var, norm.momentum, norm.eps
        )
        ctx.save_for_backward(x, gamma, beta, slope, mean, invstd)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous(memory_format=torch.channels_last)
        return (*_compiled().backward(grad, *ctx.saved_tensors), None)
