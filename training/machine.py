"""What a run computes on: device, precision and form of the step.

None of it belongs to a recipe: a run may go on elsewhere, to the last bits of its numbers.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training import ranks
from training.fused import bfloat16_pays, fused_view

STEPS = ("fused", "plain", "compiled")


@dataclass(frozen=True)
class Machine:
    """device: cpu or cuda. step: fused (fused.py; a CPU's fastest), plain (PyTorch as it is) or
    compiled (torch.compile). bfloat16: matrix products in it; parameters stay float32."""

    device: torch.device
    step: str = "plain"
    bfloat16: bool = False

    def stepping(self, network: nn.Module) -> nn.Module:
        """The network as training steps call it, which shares every parameter with it.

        Moves the network to the device, channels last. Among several ranks, gradients are the
        mean of all. Evaluation, saving and export go by the network itself."""
        network.to(self.device, memory_format=torch.channels_last)
        view = network
        if self.step == "fused":
            view = fused_view(network)
        elif self.step == "compiled":
            view = torch.compile(network)
        return ranks.averaging(view)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)


def this_machine(device: str, *, step: str | None = None, bfloat16: bool | None = None) -> Machine:
    """The machine of this process, which joins the other ranks; None takes what is fastest here.

    That is the fused step on a CPU and PyTorch's own elsewhere, and bfloat16 where there are matrix
    units for it. Raises ValueError for cuda where there is none, and for fused on it."""
    here = ranks.join(device)
    step = step or ("fused" if here.type == "cpu" else "plain")
    if step == "fused" and here.type != "cpu":
        raise ValueError("the fused step is a CPU's; on cuda take plain or compiled")
    if bfloat16 is None:
        pays = torch.cuda.is_bf16_supported if here.type == "cuda" else bfloat16_pays
        bfloat16 = step != "plain" and pays() if here.type == "cpu" else pays()
    return Machine(here, step, bfloat16)
