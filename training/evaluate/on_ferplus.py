"""All figures of expression graphs, ours and a peer's side by side: on FERPlus's test part by two
rules of its labels, on LFW's photographs in colour and in grey, and on faces made smaller.

Everything is measured on the graph that is served, on crops as the service makes them. Nothing is
chosen on a test: the smallest face comes from FERPlus's validation part."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.vision.align import EXPRESSION_CANVAS, Canvas
from training.data.expressions import CLASSES, ExpressionSet
from training.data.fer import read_ferplus
from training.data.pixels import Pixels
from training.evaluate import lfw
from training.evaluate.embeddings import names_of
from training.evaluate.expression import expression_figures, expression_scores
from training.evaluate.face_size import (
    WITHIN,
    Face,
    crops_at_size,
    faces_of_crops,
    size_curve,
    smallest_size,
)
from training.evaluate.figures import plain
from training.expression import part
from training.graphs import Classifier, open_classifier

RULES = ("majority", "argmax8")  # the first is the one that the network is chosen by
MOST_FACES = 1000  # of a set, evenly taken, that are made smaller
DIGITS = 4
ROW = (  # what a set's line tells
    *("faces", "accuracy", "accuracy_low", "accuracy_high"),
    *("macro_f1", "macro_f1_low", "macro_f1_high"),
    *("majority_accuracy", "expected_calibration_error"),
)
SIZE_RULE = (
    "Faces of FERPlus's validation part and of LFW, made smaller by area until their eyes are so "
    "many pixels apart, and brought to the network by the service's alignment, with the landmarks "
    f"of the photograph at full size. The smallest face answered is the smallest size from which "
    f"on accuracy on FERPlus's validation part is within {100 * WITHIN:g} points of that of its "
    "images as they are; LFW, a test, has no say."
)


def evaluate(
    graphs: Sequence[Path],
    data: Path,
    *,
    threads: int = 2,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """The figures of each graph, in their order, as JSON holds them.

    data: the folder with ferplus/ and, for photographs in colour, lfw/ with expressions.csv. Faces
    are made smaller for the first graph alone. Raises FileNotFoundError and ValueError for a graph
    or a set that cannot be read, before anything is measured."""
    networks = [open_classifier(path, threads=threads) for path in graphs]
    for path, network in zip(graphs, networks, strict=True):
        if network.classes != len(CLASSES):
            raise ValueError(f"{path} gives {network.classes} scores, not {len(CLASSES)}")
    by_rule = {rule: read_ferplus(data / "ferplus", rule=rule) for rule in RULES}
    photographs = data / "lfw" if (data / "lfw" / "expressions.csv").exists() else None
    if photographs is None:
        say(f"{data / 'lfw' / 'expressions.csv'} is not there: colour is left out")
    found = []
    for path, network, name in zip(graphs, networks, names_of(graphs), strict=True):
        say(f"measuring {name}")
        digest = sha256(path.read_bytes()).hexdigest()
        figures = {"name": name, "graph": str(path), "sha256": digest, "task": "expression"}
        figures |= _on_ferplus(network, by_rule)
        if photographs:
            of_lfw = _on_lfw(network, photographs)
            figures["metrics"] |= of_lfw.pop("metrics")
            figures |= of_lfw
        if not found:
            figures |= _face_size(network, by_rule[RULES[0]], photographs)
        found.append(plain(figures, DIGITS))
    return found


def _on_ferplus(network: Classifier, by_rule: Mapping[str, ExpressionSet]) -> dict[str, Any]:
    tests = {rule: part(faces, faces.split_N == "test") for rule, faces in by_rule.items()}
    # Each image is asked once: "majority" names fewer of them, and none that "argmax8" does not.
    asked = tests["argmax8"]
    place = {path: i for i, path in enumerate(asked.paths)}
    scores_NK = expression_scores(network, asked.pixels)
    found = {
        rule: expression_figures(scores_NK[[place[p] for p in test.paths]], test.labels_N, CLASSES)
        for rule, test in tests.items()
    }
    stated = found[RULES[0]]
    return {
        "metrics": {
            f"FERPlus test, {rule}": {key: figures[key] for key in ROW}
            for rule, figures in found.items()
        },
        "expressions": stated["classes"],
        "confusion": stated["confusion"],
        "reliability": stated["reliability"],
    }


def _on_lfw(network: Classifier, folder: Path) -> dict[str, Any]:
    names, labels_N = lfw.read_expressions(folder, CLASSES)
    canvas, found = _canvas(network), {}
    for colour in ("colour", "grey"):
        face = lfw.faces(folder, names, grey=colour == "grey")
        scores_NK = expression_scores(network, crops_at_size(face, len(names), canvas))
        found[colour] = expression_figures(scores_NK, labels_N, CLASSES)
    return {
        "metrics": {
            f"LFW, {colour}": {key: figures[key] for key in ROW}
            for colour, figures in found.items()
        },
        "expressions_on_lfw": {
            name: {"faces": row["faces"]}
            | {f"recall_in_{k}": figures["classes"][name]["recall"] for k, figures in found.items()}
            for name, row in found["colour"]["classes"].items()
        },
    }


def _face_size(
    network: Classifier, ferplus: ExpressionSet, photographs: Path | None
) -> dict[str, Any]:
    held_out = part(ferplus, ferplus.split_N == "validation")
    of_crop = faces_of_crops(held_out.pixels, EXPRESSION_CANVAS.template_52)
    curves = {"FERPlus validation": _curve(network, of_crop, held_out.labels_N)}
    if photographs:
        names, labels_N = lfw.read_expressions(photographs, CLASSES)
        curves["LFW"] = _curve(network, lfw.faces(photographs, names), labels_N)
    smallest = smallest_size(curves["FERPlus validation"], "accuracy")
    return {
        "min_inter_eye_px": smallest,
        "face_size": {"rule": SIZE_RULE, "figure": "accuracy", "curves": curves},
    }


def _curve(
    network: Classifier, face: Callable[[int], Face], labels_N: NDArray[np.int64]
) -> list[dict[str, Any]]:
    count = min(len(labels_N), MOST_FACES)
    places = np.linspace(0, len(labels_N) - 1, count).round().astype(int)

    def measure(crops: Pixels) -> dict[str, float]:
        scores_NK = expression_scores(network, crops)
        figures = expression_figures(scores_NK, labels_N[places], CLASSES, rounds=0)
        return {key: figures[key] for key in ("faces", "accuracy", "macro_f1")}

    return size_curve(lambda i: face(int(places[i])), count, _canvas(network), measure)


def _canvas(network: Classifier) -> Canvas:
    return EXPRESSION_CANVAS.scaled(network.width)
