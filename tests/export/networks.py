"""Networks as training would leave them, without training: statistics of crops, no weight of 0."""

import numpy as np
import torch
from torch import nn

from tests.training.crops import drawn_crops

CROPS = drawn_crops(people=3, each=2).pixels_NHWC


def crops_of(height, width):
    """Six drawn crops of another size: uint8 (6, height, width, 3)."""
    return np.ascontiguousarray(np.tile(CROPS, (1, 2, 2, 1))[:, :height, :width])


def as_trained(network, crops, *, mean=127.5, scale=127.5):
    """The network in evaluation mode, its batch norms filled with the crops' own statistics."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    network.train()
    answer(network, crops, mean, scale)
    for name, parameter in network.named_parameters():
        if not name.endswith("bias") and not parameter.any():
            nn.init.normal_(parameter, 0.05, 0.01)  # more, and rounding decides
    return network.eval()


def answer(network, crops, mean=127.5, scale=127.5):
    """The network's own answer to pixels that numpy has normalised."""
    planes = (crops.transpose(0, 3, 1, 2).astype(np.float32) - mean) / scale
    with torch.no_grad():
        return network(torch.from_numpy(np.ascontiguousarray(planes, np.float32)))
