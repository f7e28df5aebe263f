"""Muon for the matrices of a network, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) moves a matrix by its momentum
with all singular values made one. Most of a MobileFaceNet's weights are matrices, the 1x1
convolutions; by it the same crops teach more.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def matrices(parameters: Iterable[Tensor]) -> Callable[[Tensor], bool]:
    """Says of a tensor whether it is one of the parameters, and one that Muon can take: a matrix
    (o, i), or a 1x1 convolution's (o, i, 1, 1)."""
    found = {id(p) for p in parameters if p.ndim == 2 or p.shape[2:] == (1, 1)}
    return lambda parameter: id(parameter) in found


class MuonAndAdamW:
    """Used as a torch.optim.Optimizer: param_groups, zero_grad, step, state_dict, load_state_dict,
    register_step_post_hook.

    groups: param groups for AdamW, each with a `weight_decay` and whatever else; a parameter of
    theirs that is_matrix says so of, which must be (o, i) or (o, i, 1, 1), goes to a group of
    Muon's with the same settings. Updates of Muon are scaled to the size of AdamW's, so that both
    take one rate."""

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, is_matrix: Callable[[Tensor], bool]
    ) -> None:
        # torch.optim.Muon takes what has two dimensions: the same memory, seen flat.
        self._flat_of: dict[Tensor, nn.Parameter] = {}
        for group in groups:
            for parameter in filter(is_matrix, group["params"]):
                flat = parameter.detach().view(parameter.shape[:2])
                self._flat_of[parameter] = nn.Parameter(flat)
        of_muon, of_adamw = [], []
        for group in groups:
            matrices = [self._flat_of[p] for p in group["params"] if p in self._flat_of]
            others = [p for p in group["params"] if p not in self._flat_of]
            of_muon += [{**group, "params": matrices}] if matrices else []
            of_adamw += [{**group, "params": others}] if others else []
        self._muon = torch.optim.Muon(of_muon, lr=lr, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(of_adamw, lr=lr, fused=True)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [*self._muon.param_groups, *self._adamw.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self._flat_of:
            parameter.grad = None
        self._adamw.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        for parameter, flat in self._flat_of.items():
            flat.grad = None if parameter.grad is None else parameter.grad.view(flat.shape)
        self._muon.step()
        self._adamw.step()

    def register_step_post_hook(self, hook: Callable[..., None]) -> Any:
        return self._adamw.register_step_post_hook(hook)  # its step is the last

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        self._muon.load_state_dict(kept["muon"])
        self._adamw.load_state_dict(kept["adamw"])
