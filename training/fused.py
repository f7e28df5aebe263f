"""A faster view of a network for training on a CPU: normalisation with PReLU or ReLU6, depth-wise
convolution and ESCA as one compiled step each, on float32 or bfloat16 maps.

The view shares every parameter and buffer with the network, so the network is what is saved,
evaluated and exported; it never knows. Needs a C++ compiler; the first use compiles for a minute.
"""

import copy
import fcntl
import hashlib
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.cpp_extension import get_default_build_root, load

from training.networks.ecacface import ESCA

LANES = 16  # maps of another number of channels are left to PyTorch
SAME = (0, 1, 0, 1)  # TensorFlow's padding of an even map for a stride of 2
UNBOUNDED = torch.finfo(torch.float32).max


def fused_view(network: nn.Module) -> nn.Module:
    """The network with its BatchNorm2d (joined with the PReLU or ReLU6 behind, if there is one),
    its 3x3 depth-wise convolutions (joined with TensorFlow's padding before), those whose windows
    do not overlap, and its ESCA replaced.

    Only direct neighbours in an nn.Sequential are joined. For training steps alone: the view
    normalises by the batch whatever mode the network is in. Under torch.autocast with bfloat16 its
    maps are bfloat16, while parameters, statistics and gradients of parameters stay float32.
    """
    view = copy.copy(network)
    view._modules = {}
    last, before = "", None  # the neighbour before, by name and as the view has it
    for name, child in network.named_children():
        if isinstance(before, _Norm) and before.joins(child):
            continue
        if isinstance(before, nn.ZeroPad2d) and _is_depthwise(child, before.padding):
            del view._modules[last]
            view._modules[name] = _Depthwise(child, before=0)
        else:
            view._modules[name] = _replaced(child)
        if isinstance(network, nn.Sequential):
            last, before = name, view._modules[name]
    return view


def _replaced(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d) and module.num_features % LANES == 0:
        return _Norm(module)
    if _is_depthwise(module):
        return _Depthwise(module, before=1)
    if _has_windows(module):
        return _Windows(module)
    if isinstance(module, ESCA) and module.f2.in_channels % (2 * LANES) == 0:
        return _ESCA(module)
    return fused_view(module)


def bfloat16_pays() -> bool:
    """True if this CPU multiplies bfloat16 numbers itself (AMX or AVX512_BF16); without, float32
    maps are as fast."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _is_depthwise(module: nn.Module, around: tuple[int, ...] = ()) -> bool:
    """Whether it is a convolution that the compiled step does; around: a ZeroPad2d's before it."""
    padding, strides = ((0, 0), [(2, 2)]) if around == SAME else ((1, 1), [(1, 1), (2, 2)])
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels == module.out_channels
        and module.in_channels % LANES == 0
        and (module.kernel_size, module.padding, module.dilation) == ((3, 3), padding, (1, 1))
        and module.stride in strides
        and module.bias is None
        and around in ((), SAME)
    )


def _has_windows(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels == module.out_channels
        and module.kernel_size == module.stride
        and (module.padding, module.dilation) == ((0, 0), (1, 1))
        and module.bias is None
    )


@cache
def _compiled() -> Any:
    """The compiled passes, built once per processor, checkout and state of their sources.

    PyTorch marks a build by a file, and waits for ever for one whose process was killed: a lock of
    the system's, which ends with its process, decides here who builds, and a mark is taken away."""
    folder = Path(__file__).parent / "compiled"
    sources = sorted(str(path) for path in folder.glob("*.cpp"))
    flags = ["-O3", "-march=native", "-fopenmp", "-ffast-math"]
    told = [str(folder).encode(), *(path.read_bytes() for path in sorted(folder.iterdir()))]
    told.append(_instructions())
    name = f"mien_maps_{hashlib.sha256(b''.join(told)).hexdigest()[:12]}"
    build = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()) / name
    build.mkdir(parents=True, exist_ok=True)
    with build.with_suffix(".building").open("w") as building:
        fcntl.flock(building, fcntl.LOCK_EX)
        (build / "lock").unlink(missing_ok=True)
        return load(
            name,
            sources,
            extra_cflags=flags,
            extra_ldflags=["-fopenmp"],
            build_directory=str(build),
        )


def _instructions() -> bytes:
    """The processor's own, as Linux lists them: what `-march=native` builds for."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_bytes().splitlines() if facts.exists() else [platform.machine().encode()]
    return next((line for line in lines if line.startswith((b"flags", b"Features"))), lines[0])


def _channels_last(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.contiguous(memory_format=torch.channels_last)


class _Norm(nn.Module):
    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm, self.activation = norm, None
        self.register_buffer("slope", torch.ones(norm.num_features), persistent=False)
        self.top = UNBOUNDED

    def joins(self, module: nn.Module) -> bool:
        """Whether the module is an activation that this does from now on."""
        if self.activation is not None:
            return False
        if isinstance(module, nn.ReLU6):
            self.activation, self.top = module, 6.0
            self.slope.zero_()
        elif isinstance(module, nn.PReLU) and module.num_parameters == self.norm.num_features:
            self.activation = module
        return self.activation is not None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        norm = self.norm
        slope = self.activation.weight if isinstance(self.activation, nn.PReLU) else self.slope
        norm.num_batches_tracked += 1
        return _NormStep.apply(x_BCHW, norm.weight, norm.bias, slope, self.top, norm)


class _NormStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, slope: Tensor, top: float, norm: Any
    ) -> Tensor:
        x = _channels_last(x)
        statistics = norm.running_mean, norm.running_var, norm.momentum, norm.eps
        out, mean, invstd = _compiled().norm_prelu_forward(x, gamma, beta, slope, top, *statistics)
        ctx.save_for_backward(x, gamma, beta, slope, mean, invstd)
        ctx.top = top
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, slope, *moments = ctx.saved_tensors
        grad = _channels_last(grad)
        by = _compiled().norm_prelu_backward(grad, x, gamma, beta, slope, ctx.top, *moments)
        return (*by, None, None)


class _Depthwise(nn.Module):
    def __init__(self, conv: nn.Conv2d, *, before: int) -> None:
        """before: rows and columns of zeros before the map, 0 or 1; there is one after it."""
        super().__init__()
        self.conv, self.before = conv, before

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _DepthwiseStep.apply(x_BCHW, self.conv.weight, self.conv.stride[0], self.before)


class _DepthwiseStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, before: int) -> Tensor:
        x = _channels_last(x)
        ctx.save_for_backward(x, weight)
        ctx.form = stride, before
        return _compiled().depthwise_forward(x, weight, stride, before)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_x, by_weight = _compiled().depthwise_backward(
            _channels_last(grad), *ctx.saved_tensors, *ctx.form
        )
        return by_x, by_weight, None, None


class _Windows(nn.Module):
    """A depth-wise convolution whose stride is its kernel: products and sums of windows.

    PyTorch's gradients of it, few as the positions are, take longer than all pointwise ones."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x_BCHW: Tensor) -> Tensor:
        (tall, wide), (height, width) = self.conv.kernel_size, x_BCHW.shape[2:]
        whole_BCHW = x_BCHW[:, :, : height // tall * tall, : width // wide * wide]
        windows = whole_BCHW.permute(0, 2, 3, 1).unflatten(2, (-1, wide)).unflatten(1, (-1, tall))
        weight_HWC = self.conv.weight[:, 0].permute(1, 2, 0).contiguous()
        sums_BHWC = (windows * weight_HWC[:, None]).sum((2, 4))
        return sums_BHWC.permute(0, 3, 1, 2).to(x_BCHW.dtype)


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
