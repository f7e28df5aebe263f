"""The classifiers that ship: a face's scores are its own, and the kept weights are those that ship.

A task whose artefact does not ship, as in a tree before `make weights`, is skipped."""

import numpy as np
import pytest
import torch

from export import attributes, expression
from export.graph import prove_rows
from export.kept import fitted_of
from service.inference.artefact import load_artefact
from service.settings import SHIPPED_MODELS
from tests.export.networks import answer, crops_of
from tests.shared import REPOSITORY
from training.data.framed import frame

WEIGHTS = REPOSITORY / "training" / "weights"
TASKS = {"patt-lite": expression.TASK, "mzts": attributes.TASK}
SHIPS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not (SHIPPED_MODELS / name / "manifest.json").exists(), reason=f"no {name} ships here"
        ),
    )
    for name in TASKS
]


def run_of(name):
    """(the artefact, a function from crops to scores, (height, width) of crops)."""
    artefact = load_artefact(SHIPPED_MODELS / name)
    session = artefact.graphs["model"]
    _, height, width, _ = session.inputs["crops"]["shape"]
    return artefact, lambda crops: session.run(np.ascontiguousarray(crops))[0], (height, width)


@pytest.mark.parametrize("name", SHIPS)
def test_a_faces_scores_are_the_same_alone_in_any_batch_and_in_any_order(name):
    _, run, size = run_of(name)
    prove_rows(run, crops_of(*size), difference=1e-5)


@pytest.mark.parametrize("name", SHIPS)
def test_the_kept_weights_and_temperature_are_those_of_the_graph(name):
    artefact, run, size = run_of(name)
    kept = WEIGHTS / f"{name}.safetensors"
    network, _, classes = TASKS[name].read(kept)
    assert artefact.manifest["classes"] == classes
    fitted = fitted_of(kept)
    assert artefact.manifest["temperature"] == pytest.approx(fitted.temperature)
    crops = crops_of(*size)
    takes = network.size if isinstance(network.size, tuple) else (network.size, network.size)
    logits = answer(network, np.stack([frame(crop, takes) for crop in crops]))
    logits = logits / torch.tensor(fitted.temperature) - torch.tensor(fitted.shift)
    scores = logits.softmax(1) if artefact.task == "expression" else torch.sigmoid(logits)
    np.testing.assert_allclose(run(crops), scores, rtol=0, atol=2e-5)
