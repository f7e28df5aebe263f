"""Weights as they are kept: in half precision, with the temperature that was fitted to them.

Git holds them, so size counts. They are rounded before anything is fitted, exported or measured:
graph and figures are those of the values that are kept.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from training.checkpoint import metadata_of, write

PRECISION = "matrices and kernels in float16, vectors as they were trained"
Rounds = list[dict[str, Any]]


@dataclass(frozen=True)
class Fitted:
    """temperature: what logits are divided by. facts: for the manifest, how it was found and what
    rounding changed. shift: what is then taken off, none for a distribution."""

    temperature: float | list[float]
    facts: dict[str, Any]
    shift: float | list[float] = 0.0


def halved(network: nn.Module) -> nn.Module:
    """A copy whose matrices and kernels are rounded to float16, held in float32; norms, biases and
    statistics, a small share, are left: a statistic may be larger than float16 can tell.

    Raises ValueError, naming it, for a weight beyond float16's range."""
    rounded = copy.deepcopy(network)
    for name, value in rounded.state_dict().items():
        if _is_halved(value):
            value.copy_(value.half())
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} has a weight beyond what float16 can hold")
    return rounded


def put(path: Path, rounded: nn.Module, rounds: Rounds, fitted: Fitted) -> None:
    """The network that `halved` gave, as safetensors; the rounds that it went through and what was
    fitted in its metadata. Raises OSError where it cannot be written."""
    tensors = {
        name: (value.half() if _is_halved(value) else value).contiguous()
        for name, value in rounded.state_dict().items()
    }
    metadata = {"rounds": json.dumps(rounds), "fitted": json.dumps(asdict(fitted))}
    write(path, lambda part: save_file(tensors, part, metadata=metadata))


def fitted_of(kept: Path) -> Fitted:
    """What was fitted to kept weights. Raises ValueError for others."""
    metadata = metadata_of(kept)
    if "fitted" not in metadata:
        raise ValueError(f"{kept} has no temperature: `keep` makes weights that have")
    return Fitted(**json.loads(metadata["fitted"]))


def rounding(
    trained_NK: NDArray[np.floating],
    kept_NK: NDArray[np.floating],
    answer: Callable[[NDArray[np.floating]], NDArray[Any]],
) -> dict[str, Any]:
    """What rounding changed, for the manifest: of the scores of the network as trained and as kept
    on the same faces. answer: what is answered for scores."""
    before, after = answer(trained_NK), answer(kept_NK)
    return {
        "weights": PRECISION,
        "largest_difference_of_a_score": float(np.abs(trained_NK - kept_NK).max()),
        "answers": before.size,
        "answers_that_changed": int((before != after).sum()),
    }


def _is_halved(value: torch.Tensor) -> bool:
    return value.is_floating_point() and value.ndim >= 2
