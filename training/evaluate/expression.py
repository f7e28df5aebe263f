"""How well an expression network names expressions: N faces, K classes."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.pixels import Pixels
from training.evaluate.bootstrap import draws, measured, share
from training.evaluate.reliability import calibration_error, reliability
from training.graphs import Classifier


def expression_figures(
    scores_NK: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    classes: Sequence[str],
    *,
    rounds: int = 400,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy, macro F1, precision and recall a class, the confusion matrix and how far the
    confidence can be trusted; 95 % over faces.

    scores_NK: a distribution a row. labels_N: in [0, K). A class that no face has is left out of
    macro F1. Raises ValueError for scores or labels of another form."""
    _require(scores_NK, labels_N, classes)
    answers = scores_NK.argmax(1)
    right, confidence = answers == labels_N, scores_NK.max(1)
    weights_RN = draws(len(labels_N), rounds=rounds, seed=seed)
    confusion_RKK = _confusion(answers, labels_N, len(classes), weights_RN)
    return {
        "faces": len(labels_N),
        **measured("accuracy", share(right, weights_RN)),
        **measured("macro_f1", macro_f1(confusion_RKK)),
        "majority_accuracy": float(np.bincount(labels_N).max() / len(labels_N)),
        "expected_calibration_error": calibration_error(confidence, right),
        "classes": _by_class(confusion_RKK, classes),
        "confusion": confusion_RKK[0].astype(int).tolist(),  # rows: the truth; columns: the answer
        "reliability": reliability(confidence, right),
    }


def macro_f1(confusion_RKK: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,): the mean over classes of F1, the harmonic mean of precision and recall.

    confusion_RKK: rows are the truth, columns the answers. F1 is 0 where a class is never found."""
    right = np.diagonal(confusion_RKK, axis1=1, axis2=2)
    there, given = confusion_RKK.sum(2), confusion_RKK.sum(1)
    f1 = 2 * right / np.maximum(there + given, 1e-12)
    return (f1 * (there > 0)).sum(1) / np.maximum((there > 0).sum(1), 1)


def expression_scores(
    network: Classifier, images_NHWC: Pixels, *, batch: int = 32
) -> NDArray[np.float32]:
    """(N, K): the graph's answers to images of any one size, resized to the crops that it takes.

    images_NHWC: uint8 RGB, or (N, H, W) grey."""
    parts = []
    for i in tqdm(range(0, len(images_NHWC), batch), desc="expressions", leave=False):
        images = [_rgb(image) for image in images_NHWC[i : i + batch]]
        crops = [cv2.resize(image, (network.width, network.height)) for image in images]
        parts.append(network.scores(np.stack(crops)))
    return np.concatenate(parts)


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _require(
    scores_NK: NDArray[np.floating], labels_N: NDArray[np.int64], classes: Sequence[str]
) -> None:
    if scores_NK.shape != (len(labels_N), len(classes)):
        raise ValueError(
            f"scores are {scores_NK.shape}, not ({len(labels_N)} faces, {len(classes)} classes)"
        )
    if len(labels_N) and not (labels_N.min() >= 0 and labels_N.max() < len(classes)):
        wrong = labels_N[(labels_N < 0) | (labels_N >= len(classes))][0]
        raise ValueError(f"label {wrong} is outside [0, {len(classes)})")
    if not np.isfinite(scores_NK).all():
        raise ValueError("a score is not a finite number")


def _confusion(
    answers_N: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    classes: int,
    weights_RN: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(R, K, K): how much weight of each true class got which answer."""
    cells = labels_N * classes + answers_N
    counts = [np.bincount(cells, weights, classes**2) for weights in weights_RN]
    return np.array(counts).reshape(-1, classes, classes)


def _by_class(confusion_RKK: NDArray[np.float64], classes: Sequence[str]) -> dict[str, Any]:
    rows = {}
    for k, name in enumerate(classes):
        right, there = confusion_RKK[:, k, k], confusion_RKK[:, k].sum(1)
        given = confusion_RKK[0, :, k].sum()
        with np.errstate(invalid="ignore"):
            recall = measured("recall", right / there)
        precision = float(right[0] / given) if given else float("nan")
        rows[name] = {"faces": int(there[0]), "precision": precision, **recall}
    return rows
