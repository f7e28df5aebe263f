"""The way of a batch: crops and the teacher's answers -> embeddings -> losses -> step ->
checkpoint."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.batches import batches
from training.data.crops import Crops
from training.evaluate.verification import Verification, verification
from training.fused import fused_view
from training.losses import cosine_distillation, cosines, curricular_cosines, curricular_t
from training.networks.ecacface import MobileFaceNet
from training.recipes.ecacface_mobile import Recipe, rate

# Not a part of what a run learns from a step: a run may be made longer while its rate has not
# fallen yet.
LENGTH = ("steps", "decay_steps")


@dataclass
class State:
    """All that a checkpoint holds. t: CurricularFace's scalar; weights_CD: the classes'
    directions."""

    step: int
    network: MobileFaceNet
    weights_CD: nn.Parameter
    t: Tensor
    optimizer: torch.optim.Optimizer


def train(
    recipe: Recipe,
    crops: Crops,
    teacher_ND: NDArray[np.float32],
    validation: Crops,
    folder: Path,
    *,
    save_every_s: float = 300,
    validate_every: int = 500,
    fused: bool = True,
    warm: Path | None = None,
) -> State:
    """Trains to recipe.steps, from folder's last checkpoint where there is one; returns the end's
    state.

    teacher_ND: unit float32, row i for crop i. warm: weights that a new run begins with. Writes
    last.pt (every save_every_s seconds and at the end), stable.pt (when the rate begins to fall)
    and log.jsonl into folder. Raises ValueError for a checkpoint of another recipe and for a loss
    that is not finite, naming the step."""
    folder.mkdir(parents=True, exist_ok=True)
    state = _begin(recipe, crops, teacher_ND)
    if warm is not None:
        state.network.load_state_dict(load_file(warm))
    _resume(recipe, state, folder / "last.pt")
    network = state.network.train()
    stepping = fused_view(network) if fused else network
    teacher, labels = torch.from_numpy(teacher_ND), torch.from_numpy(crops.labels_N)
    saved = time.monotonic()
    begun, begun_at = state.step, time.monotonic()
    for step, batch in batches(
        crops.pixels_NHWC, size=recipe.batch, start=state.step, stop=recipe.steps, seed=recipe.seed
    ):
        if step == recipe.steps - recipe.decay_steps:
            _save(recipe, state, folder / "stable.pt")
        for group in state.optimizer.param_groups:
            group["lr"] = rate(recipe, step) * group["share"]
        chosen = torch.from_numpy(batch.indices_N)
        embeddings = stepping(as_input(batch.pixels_NHWC))
        distance = cosine_distillation(embeddings, teacher[chosen])
        margin = _curricular(recipe, state, embeddings, labels[chosen])
        loss = distance + recipe.margin_weight * margin
        if not torch.isfinite(loss):
            raise ValueError(
                f"{recipe.name}: the loss of step {step} is {loss.item()}; "
                f"{folder / 'last.pt'} holds the last good state"
            )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.step = step + 1
        if state.step % 50 == 0:
            _log(
                folder,
                step=state.step,
                rate=rate(recipe, step),
                distance=distance.item(),
                margin=margin.item(),
                t=state.t.item(),
                images_a_s=(state.step - begun) * recipe.batch / (time.monotonic() - begun_at),
            )
        if state.step % validate_every == 0 or state.step == recipe.steps:
            _log(folder, step=state.step, **asdict(validate(network, validation)))
        if time.monotonic() - saved > save_every_s:
            _save(recipe, state, folder / "last.pt")
            saved = time.monotonic()
    _save(recipe, state, folder / "last.pt")
    keep_network(recipe, state, folder / "network.safetensors", warm)
    return state


def keep_network(recipe: Recipe, state: State, path: Path, warm: Path | None = None) -> None:
    """The network alone; in the file's metadata every recipe that it went through, last one last.

    warm: the weights that it began with, whose own recipes stand before.
    """
    rounds = [*(rounds_of(warm) if warm else []), {**asdict(recipe), "steps": state.step}]
    weights = {name: tensor.contiguous() for name, tensor in state.network.state_dict().items()}
    save_file(weights, path, metadata={"rounds": json.dumps(rounds)})


def rounds_of(path: Path) -> list[dict[str, Any]]:
    """The recipes that a network was trained by. Raises ValueError where its file tells none."""
    with safe_open(path, "pt") as kept:
        facts = kept.metadata() or {}
    if "rounds" not in facts:
        raise ValueError(f"{path} does not say by which recipe it was trained")
    rounds: list[dict[str, Any]] = json.loads(facts["rounds"])
    return rounds


def as_input(pixels_NHWC: NDArray[np.uint8]) -> Tensor:
    """float32 (n, 3, H, W) in [-1, 1], channels last in memory, of uint8 RGB crops."""
    pixels = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2)
    return pixels.float().sub_(127.5).div_(127.5)


def embed(
    network: nn.Module, pixels_NHWC: NDArray[np.uint8], batch: int = 64
) -> NDArray[np.float32]:
    """Unit embeddings (N, D) of crops, the network in evaluation mode meanwhile."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        parts = [
            network(as_input(np.array(pixels_NHWC[i : i + batch])))
            for i in range(0, len(pixels_NHWC), batch)
        ]
    network.train(was_training)
    return F.normalize(torch.cat(parts)).numpy()


def validate(network: nn.Module, crops: Crops) -> Verification:
    """Verification over all pairs of the validation crops."""
    return verification(embed(network, crops.pixels_NHWC), crops.labels_N)


def _begin(recipe: Recipe, crops: Crops, teacher_ND: NDArray[np.float32]) -> State:
    """Fresh weights; the classes' directions begin at the teacher's mean answer for each person."""
    torch.manual_seed(recipe.seed)
    network = MobileFaceNet(recipe.attention, recipe.embedding)
    network.to(memory_format=torch.channels_last)
    centres = np.zeros((len(crops.people), recipe.embedding), np.float32)
    known = crops.labels_N >= 0
    np.add.at(centres, crops.labels_N[known], teacher_ND[known])
    weights = nn.Parameter(F.normalize(torch.from_numpy(centres)))
    # Adam moves every element by about the rate; those of a unit direction are small from the
    # start.
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in network.parameters() if p.ndim > 1],
                "share": 1.0,
                "weight_decay": recipe.weight_decay,
            },
            {
                "params": [p for p in network.parameters() if p.ndim <= 1],
                "share": 1.0,
                "weight_decay": 0.0,
            },
            {"params": [weights], "share": 0.1, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        fused=True,
    )
    return State(0, network, weights, torch.zeros(()), optimizer)


def _curricular(recipe: Recipe, state: State, embeddings_BD: Tensor, labels_B: Tensor) -> Tensor:
    """CurricularFace's cross-entropy over the labelled crops of the batch, divided by s."""
    known = labels_B >= 0
    if not known.any():
        return embeddings_BD.new_zeros(())
    cosines_BC, labels_B = cosines(embeddings_BD[known], state.weights_CD), labels_B[known]
    state.t = curricular_t(state.t, cosines_BC, labels_B, alpha=recipe.alpha)
    changed = curricular_cosines(cosines_BC, labels_B, state.t, margin_rad=recipe.margin_rad)
    return F.cross_entropy(recipe.scale * changed, labels_B) / recipe.scale


def _save(recipe: Recipe, state: State, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(
        {
            "recipe": asdict(recipe),
            "step": state.step,
            "network": state.network.state_dict(),
            "weights": state.weights_CD.data,
            "t": state.t,
            "optimizer": state.optimizer.state_dict(),
        },
        part,
    )
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(path)


def _resume(recipe: Recipe, state: State, path: Path) -> None:
    if not path.exists():
        return
    kept = torch.load(path, weights_only=True)
    ours, theirs = asdict(recipe), kept["recipe"]
    other = [k for k in ours if k not in LENGTH and ours[k] != theirs.get(k)]
    if other:
        raise ValueError(f"{path} is of another recipe: {', '.join(other)} differ")
    fallen = kept["step"] > theirs["steps"] - theirs["decay_steps"]
    if fallen and any(ours[k] != theirs[k] for k in LENGTH):
        raise ValueError(
            f"{path} was saved at step {kept['step']}, when its rate had begun to fall; "
            f"to go on for longer, put stable.pt in its place"
        )
    state.network.load_state_dict(kept["network"])
    state.weights_CD.data.copy_(kept["weights"])
    state.t = kept["t"]
    state.optimizer.load_state_dict(kept["optimizer"])
    state.step = kept["step"]


def _log(folder: Path, **values: float) -> None:
    line = json.dumps({k: round(v, 6) for k, v in values.items()})
    print(line, flush=True)
    with (folder / "log.jsonl").open("a") as log:
        log.write(line + "\n")
