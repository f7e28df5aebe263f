"""MobileNetV1 (arXiv:1704.04861), as far as PAtt-Lite takes it, and ImageNet's weights for it.

Names and order of the layers are Keras', by which PAtt-Lite's paper counts."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.networks.ir import one_of

# Blocks 1 to 11 of the paper's table 1: channels out, stride of the depth-wise.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
)
CUTS = tuple(f"dw_{block}" for block in range(6, 12))  # 14 x 14 positions of 224 x 224
STRIDE = 16  # pixels a position
SLIM = {  # batch norm, ours and TF-slim's
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def mobilenet(cut: str = "dw_9") -> nn.Sequential:
    """MobileNetV1 from images (B, 3, S, S) in [-1, 1] to the ReLU6 after a depth-wise convolution.

    Returns a flat sequence in Keras' order and names, (B, 512, S / 16, S / 16) out of it (dw_6:
    256 channels). Strided convolutions pad an even map by 0 before and 1 after, as TensorFlow's
    "SAME"; the first pad stands where Keras has its input layer, so that places count as in
    PAtt-Lite's paper. Raises ValueError for a cut that is none of CUTS.
    """
    one_of("cut", cut, CUTS)
    layers: OrderedDict[str, nn.Module] = OrderedDict()

    def add(name: str, conv: nn.Conv2d) -> None:
        layers[name] = conv
        layers[f"{name}_norm"] = nn.BatchNorm2d(conv.out_channels, eps=1e-3, momentum=0.01)
        layers[f"{name}_relu"] = nn.ReLU6()

    layers["pad_0"] = nn.ZeroPad2d((0, 1, 0, 1))
    add("conv", nn.Conv2d(3, 32, 3, 2, bias=False))
    i = 32
    for block, (o, stride) in enumerate(BLOCKS, 1):
        if stride == 2:
            layers[f"pad_{block}"] = nn.ZeroPad2d((0, 1, 0, 1))
        inner = 0 if stride == 2 else 1
        add(f"dw_{block}", nn.Conv2d(i, i, 3, stride, inner, groups=i, bias=False))
        if cut == f"dw_{block}":
            break
        add(f"pw_{block}", nn.Conv2d(i, o, 1, bias=False))
        i = o
    return nn.Sequential(layers)


def read_mobilenet(path: Path, backbone: nn.Sequential) -> None:
    """Puts ImageNet's MobileNetV1 1.0 (an .npz of TF-slim's arrays) into a truncated backbone.

    Arrays `Conv2d_0/weights` and `Conv2d_{1..13}_{depthwise,pointwise}/weights` in (H, W, in, out),
    depth-wise (H, W, C, 1), any float type, and `.../BatchNorm/{gamma, beta, moving_mean,
    moving_variance}` (C,). What lies after the cut is not read. Raises ValueError for an array that
    is absent or of another shape, by its name; the backbone is then as it was."""
    weights = backbone.state_dict()
    with np.load(path) as arrays:
        for ours in weights:
            if not ours.endswith("num_batches_tracked"):
                weights[ours] = _array(arrays, _slim_name(ours), weights[ours].shape, path)
    backbone.load_state_dict(weights)


def _slim_name(ours: str) -> str:
    """TF-slim's name of a tensor of the backbone: dw_3_norm.bias is Conv2d_3_depthwise/...beta."""
    layer, field = ours.split(".")
    kind, block = (layer + "_").split("_")[:2]
    scope = {
        "conv": "Conv2d_0",
        "dw": f"Conv2d_{block}_depthwise",
        "pw": f"Conv2d_{block}_pointwise",
    }
    leaf = f"BatchNorm/{SLIM[field]}" if layer.endswith("_norm") else "weights"
    return f"{scope[kind]}/{leaf}"


def _array(arrays: Mapping[str, NDArray[Any]], name: str, shape: torch.Size, path: Path) -> Tensor:
    """The array as float32 in torch's order of axes: (H, W, in, out) becomes (out, in, H, W)."""
    if name not in arrays:
        raise ValueError(f"{path} holds no {name}")
    array = arrays[name]
    if array.ndim == 4:
        array = array.transpose((2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1))
    if array.shape != tuple(shape):
        raise ValueError(f"{path}: {name} is, (out, in, H, W), {array.shape}; not {tuple(shape)}")
    return torch.from_numpy(array.astype(np.float32))
