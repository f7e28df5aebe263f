"""How well an attribute network sees what is there: N faces, A attributes, each present or not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.pixels import Pixels
from training.evaluate.bootstrap import draws, measured
from training.evaluate.reliability import calibration_error, reliability
from training.graphs import Classifier


def attribute_figures(
    scores_NA: NDArray[np.floating],
    present_NA: NDArray[np.bool_],
    names: Sequence[str],
    *,
    majority_A: NDArray[np.bool_] | None = None,
    rounds: int = 400,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy and balanced accuracy of each attribute beside the majority's answer, their means,
    and how far the confidence can be trusted; 95 % over faces.

    scores_NA: the probability that it is present, in [0, 1]; present from 0.5. majority_A: the more
    frequent answer in the training part, these faces' own where none is given. Balanced accuracy is
    the mean of the share of the present and of the absent that are found, so that always answering
    the majority gives 0.5; NaN where all faces or none have the attribute. Raises ValueError for
    scores of another form."""
    if scores_NA.shape != present_NA.shape or scores_NA.shape[1:] != (len(names),):
        raise ValueError(
            f"scores are {scores_NA.shape} and labels {present_NA.shape}, "
            f"not both (faces, {len(names)})"
        )
    if not ((scores_NA >= 0) & (scores_NA <= 1)).all():
        raise ValueError("a score is outside [0, 1]")
    found = scores_NA >= 0.5
    right = found == present_NA
    usual = present_NA.mean(0) >= 0.5 if majority_A is None else majority_A
    weights_RN = draws(len(present_NA), rounds=rounds, seed=seed)
    accuracy_RA = _shares(right, weights_RN)
    balanced_RA = (
        _shares(right, weights_RN, among=present_NA) + _shares(right, weights_RN, among=~present_NA)
    ) / 2
    confidence_NA = np.where(found, scores_NA, 1 - scores_NA)
    return {
        "faces": len(present_NA),
        **measured("mean_accuracy", accuracy_RA.mean(1)),
        **measured("mean_balanced_accuracy", _mean_of_known(balanced_RA)),
        "majority_mean_accuracy": float((present_NA == usual).mean()),
        "expected_calibration_error": calibration_error(confidence_NA.ravel(), right.ravel()),
        "attributes": {
            name: {
                "present": float(present_NA[:, a].mean()),
                **measured("accuracy", accuracy_RA[:, a]),
                "majority_accuracy": float((present_NA[:, a] == usual[a]).mean()),
                **measured("balanced_accuracy", balanced_RA[:, a]),
                "confusion": _confusion(found[:, a], present_NA[:, a]),
                "expected_calibration_error": calibration_error(confidence_NA[:, a], right[:, a]),
            }
            for a, name in enumerate(names)
        },
        "reliability": reliability(confidence_NA.ravel(), right.ravel()),
    }


def attribute_scores(
    network: Classifier, crops_NHWC: Pixels, *, batch: int = 32
) -> NDArray[np.float32]:
    """(N, A): the graph's answers to crops of the size that it takes, uint8 RGB.

    Raises ValueError for crops of another size."""
    if crops_NHWC.shape[1:] != (network.height, network.width, 3):
        raise ValueError(
            f"the graph takes crops of {network.height} x {network.width}, "
            f"not {crops_NHWC.shape[1:]}"
        )
    starts = tqdm(range(0, len(crops_NHWC), batch), desc="attributes", leave=False)
    return np.concatenate([network.scores(crops_NHWC[i : i + batch]) for i in starts])


def _shares(
    right_NA: NDArray[np.bool_],
    weights_RN: NDArray[np.float64],
    among: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """(R, A): the weighted share that is right, among all faces or some; NaN among none."""
    if among is None:
        among = np.ones_like(right_NA)
    with np.errstate(invalid="ignore"):
        return (weights_RN @ (right_NA & among)) / (weights_RN @ among)


def _mean_of_known(values_RA: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,): the mean of each row without its NaN; NaN where a row has nothing else."""
    known = np.isfinite(values_RA)
    with np.errstate(invalid="ignore"):
        return np.where(known, values_RA, 0).sum(1) / known.sum(1)


def _confusion(found_N: NDArray[np.bool_], present_N: NDArray[np.bool_]) -> list[list[int]]:
    """[[absent and not found, absent but found], [present but not found, present and found]]."""
    return np.bincount(2 * present_N + found_N, minlength=4).reshape(2, 2).tolist()
