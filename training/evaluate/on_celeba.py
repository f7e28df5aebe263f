"""All figures of attribute graphs, ours and a peer's side by side, on CelebA's test partition.

Everything is measured on the graph that is served. Nothing is chosen on the test: which attributes
are reliable and how small a face may be come from the validation partition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.vision.align import WIDE_CANVAS
from training.attributes import part
from training.data.attributes import NAMES, AttributeSet, read_celeba
from training.data.pixels import Pixels, chosen
from training.evaluate.attributes import attribute_figures, attribute_scores
from training.evaluate.embeddings import names_of
from training.evaluate.face_size import WITHIN, faces_of_crops, size_curve, smallest_size
from training.evaluate.figures import plain
from training.graphs import Classifier, open_classifier

RELIABLE = 0.60  # balanced accuracy on the validation partition, at least
GROUPS = ("Male", "Young")  # of CelebA's own labels, by which faces are parted
FEWEST = 20  # faces of either half of a group with and without an attribute, for it to be compared
MOST_FACES = 1000  # of a partition, evenly taken, that are made smaller
DIGITS = 4
ROW = (  # what a line of figures tells
    *("faces", "attributes", "mean_accuracy", "mean_accuracy_low", "mean_accuracy_high"),
    *("majority_mean_accuracy", "mean_balanced_accuracy"),
    *("mean_balanced_accuracy_low", "mean_balanced_accuracy_high", "expected_calibration_error"),
)
SIZE_RULE = (
    "CelebA's crops made smaller by area until the eyes are so many pixels apart, and brought to "
    "the network by the service's alignment, with the landmarks of the crop at full size. The "
    "smallest face answered is the smallest size from which on mean balanced accuracy over the "
    f"reliable attributes is within {100 * WITHIN:g} points of that of the crops as they are, on "
    "the validation partition; the test has no say."
)


@dataclass(frozen=True)
class _Part:
    """A partition's faces and what a network answered to them."""

    faces: AttributeSet
    scores_NA: NDArray[np.float32]


def evaluate(
    graphs: Sequence[Path],
    data: Path,
    *,
    threads: int = 2,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """The figures of each graph, in their order, as JSON holds them.

    data: the folder with celeba/. Faces are made smaller for the first graph alone. Raises
    FileNotFoundError and ValueError for a graph or a set that cannot be read, before anything is
    measured."""
    networks = [open_classifier(path, threads=threads) for path in graphs]
    for path, network in zip(graphs, networks, strict=True):
        if network.classes != len(NAMES):
            raise ValueError(f"{path} gives {network.classes} scores, not {len(NAMES)}")
    faces = read_celeba(data / "celeba")
    parts = {split: part(faces, split) for split in ("validation", "test")}
    majority_A = faces.labels_NA[faces.split_N == "train"].mean(0) >= 0.5
    found = []
    for path, network, name in zip(graphs, networks, names_of(graphs), strict=True):
        say(f"measuring {name}")
        digest = sha256(path.read_bytes()).hexdigest()
        figures = {"name": name, "graph": str(path), "sha256": digest, "task": "attributes"}
        answered = {
            split: _Part(each, attribute_scores(network, each.pixels))
            for split, each in parts.items()
        }
        figures |= _on_celeba(answered, majority_A)
        if not found:
            reliable_A = np.array(list(figures["reliable"].values()))
            figures |= _face_size(network, parts, reliable_A)
        found.append(plain(figures, DIGITS))
    return found


def reliable(balanced_accuracy: float) -> bool:
    """Whether an attribute is answered unasked; not where nobody or everybody has it (NaN)."""
    return bool(balanced_accuracy >= RELIABLE)


def _on_celeba(answered: dict[str, _Part], majority_A: NDArray[np.bool_]) -> dict[str, Any]:
    every = np.ones(len(NAMES), bool)
    of_validation = _figures(answered["validation"], every, majority_A, rounds=0)["by_name"]
    tells = {name: reliable(row["balanced_accuracy"]) for name, row in of_validation.items()}
    of_test = _figures(answered["test"], every, majority_A)
    of_reliable = _figures(answered["test"], np.array(list(tells.values())), majority_A)
    by_name = {
        name: {
            "reliable": tells[name],
            "balanced_accuracy_validation": of_validation[name]["balanced_accuracy"],
            **{key: value for key, value in row.items() if key != "confusion"},
        }
        for name, row in of_test["by_name"].items()
    }
    return {
        "metrics": {
            "CelebA test": {key: of_test[key] for key in ROW},
            "CelebA test, reliable ones": {key: of_reliable[key] for key in ROW},
        },
        "reliable": tells,
        "groups": _groups(answered["test"], majority_A),
        "attributes": by_name,
        "reliability": of_test["reliability"],
    }


def _figures(
    answered: _Part,
    taken_A: NDArray[np.bool_],
    majority_A: NDArray[np.bool_],
    *,
    among_N: NDArray[np.bool_] | None = None,
    rounds: int = 400,
) -> dict[str, Any]:
    """attribute_figures of some attributes, among some faces: `attributes` is how many they are,
    `by_name` what there is of each. Without any, nothing is known of the means."""
    if not taken_A.any():
        return dict.fromkeys(ROW) | {"attributes": 0, "by_name": {}}
    among = slice(None) if among_N is None else among_N
    figures = attribute_figures(
        answered.scores_NA[among][:, taken_A],
        answered.faces.labels_NA[among][:, taken_A],
        [name for name, taken in zip(NAMES, taken_A, strict=True) if taken],
        majority_A=majority_A[taken_A],
        rounds=rounds,
    )
    by_name = figures.pop("attributes")
    return {**figures, "attributes": len(by_name), "by_name": by_name}


def _groups(answered: _Part, majority_A: NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of the two halves that each of GROUPS parts the faces in, over the attributes that
    both halves have often enough; none where there are no such."""
    labels_NA, rows = answered.faces.labels_NA, {}
    for group in GROUPS:
        of_group = labels_NA[:, NAMES.index(group)]
        halves = {group: of_group, f"not {group}": ~of_group}
        counts = [labels_NA[half].sum(0) for half in halves.values()]
        absent = [(~labels_NA[half]).sum(0) for half in halves.values()]
        compared_A = np.min([*counts, *absent], axis=0) >= FEWEST
        for name, half in halves.items() if compared_A.any() else ():
            found = _figures(answered, compared_A, majority_A, among_N=half)
            rows[name] = {key: found[key] for key in ROW}
    return rows


def _face_size(
    network: Classifier, parts: dict[str, AttributeSet], reliable_A: NDArray[np.bool_]
) -> dict[str, Any]:
    curves = {
        f"CelebA {split}": _curve(network, faces, reliable_A) for split, faces in parts.items()
    }
    figure = "mean_balanced_accuracy"
    return {
        "min_inter_eye_px": smallest_size(curves["CelebA validation"], figure),
        "face_size": {"rule": SIZE_RULE, "figure": figure, "curves": curves},
    }


def _curve(
    network: Classifier, faces: AttributeSet, reliable_A: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    count = min(len(faces), MOST_FACES)
    places = np.linspace(0, len(faces) - 1, count).round().astype(int)
    names = [name for name, tells in zip(NAMES, reliable_A, strict=True) if tells]
    if not names:
        raise ValueError(f"no attribute has a balanced accuracy of {RELIABLE} on validation")

    def measure(crops: Pixels) -> dict[str, float]:
        scores_NA = attribute_scores(network, crops)[:, reliable_A]
        present_NA = faces.labels_NA[places][:, reliable_A]
        figures = attribute_figures(scores_NA, present_NA, names, rounds=0)
        return {key: figures[key] for key in ("faces", "mean_accuracy", "mean_balanced_accuracy")}

    of_crop = faces_of_crops(chosen(faces.pixels, places), WIDE_CANVAS.template_52)
    return size_curve(of_crop, count, WIDE_CANVAS, measure)
