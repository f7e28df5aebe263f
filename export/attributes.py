"""MZTS becomes the artefact that sees attributes: one graph, manifest and card.

    python -m export.attributes make runs/mzts-hybrid/best.safetensors \
        training/weights/mzts.safetensors service/models/mzts

The graph takes crops uint8 (n, 136, 112, 3) RGB in the wide alignment, of which it cuts the middle
that the network was built for, and gives `scores`, the probability that each of the 40 attributes
is there: sigmoid(logits / temperature - shift). One temperature or one an attribute, whichever is
better on faces that it was not fitted to, is fitted to CelebA's validation partition; the shift
meets rare attributes halfway, as far as half a point of accuracy goes.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from export.classifier import Task, by_size, commands, known, spread
from export.graph import Images, Pixels, Presence, proven_graph
from export.kept import Fitted, Rounds, rounding
from service.vision.align import WIDE_CANVAS
from training.attributes import network_of, part
from training.checkpoint import rounds_of
from training.classification import logits_of
from training.data.attributes import NAMES, AttributeSet, read_celeba
from training.data.framed import framed
from training.evaluate.attributes import attribute_figures
from training.evaluate.figures import plain
from training.evaluate.on_celeba import RELIABLE, evaluate
from training.evaluate.temperature import CALIBRATED, SPENT, adjusted, sigmoid_temperatures
from training.networks.mzts import MZTS
from training.recipes.attributes import Recipe

CROP = (WIDE_CANVAS.height, WIDE_CANVAS.width)
DIGITS = 4
SPENT_AND_WON = ("mean_accuracy", "mean_balanced_accuracy", "expected_calibration_error")


class Middle(nn.Module):
    """The network on the middle of larger images (B, 3, H, W), as training cuts it (framed.py).

    Raises ValueError where it is larger than the images: nothing is enlarged."""

    def __init__(self, network: nn.Module, images: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__()
        spare = [outer - inner for outer, inner in zip(images, size, strict=True)]
        if min(spare) < 0:
            raise ValueError(f"the network takes {size}, which does not lie in crops of {images}")
        if min(spare) > 0:
            # Training would scale the crop until it just covers the network's size.
            raise ValueError(f"the network takes {size}; crops of {images} cover more on each side")
        self.network, self.size = network, size
        self.top, self.left = (pixels // 2 for pixels in spare)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        height, width = self.size
        cut = images_BCHW[:, :, self.top : self.top + height, self.left : self.left + width]
        answer: Tensor = self.network(cut)
        return answer


def attributes_graph(network: MZTS, crops: Images, fitted: Fitted) -> bytes:
    """The network as a graph from crops uint8 (n, 136, 112, 3) RGB to probabilities.

    fitted: temperature and shift, one for all attributes or one each. A pixel p enters as
    p / 127.5 - 1. Raises as graph.proven_graph and Middle do, and ValueError for another number of
    them than attributes."""
    attributes = network.heads[-1][-1].out_features
    for name in ("temperature", "shift"):
        told = getattr(fitted, name)
        if isinstance(told, list) and len(told) != attributes:
            raise ValueError(f"{name}: {len(told)} numbers for {attributes} attributes")
    middle = Middle(network, CROP, network.size)
    return proven_graph(middle, Pixels(), Presence(fitted.temperature, fitted.shift), crops)


def read_weights(path: Path) -> tuple[MZTS, Rounds, list[str]]:
    """The network that a run left as safetensors, the rounds that it went through, and its classes
    in the order of the logits: those that the last round names, or else CelebA's forty.

    Raises ValueError where the file does not tell, and for another network's."""
    rounds, tensors = rounds_of(path), load_file(path)
    if "heads.0.1.bias" not in tensors:
        raise ValueError(f"{path} holds no MZTS: {rounds[-1].get('name')} trained it")
    if "size" not in rounds[-1]:
        raise ValueError(f"{path} does not tell its size")
    known = {field.name for field in fields(Recipe)}
    told = {name: value for name, value in rounds[-1].items() if name in known}
    recipe = Recipe(**{**told, "size": tuple(told["size"])})
    count = len(tensors[f"heads.{recipe.zones - 1}.1.bias"])
    classes = rounds[-1].get("classes") or (list(NAMES) if count == len(NAMES) else None)
    if classes is None:
        raise ValueError(f"{path} does not name its {count} attributes")
    network = network_of(recipe, count)
    network.load_state_dict(tensors)
    return network.eval(), rounds, classes


def held_out(data: Path) -> AttributeSet:
    """CelebA's validation partition below data."""
    return part(read_celeba(data / "celeba"), "validation")


def fit(trained: MZTS, kept: MZTS, faces: AttributeSet) -> Fitted:
    """The temperatures of the least cross-entropy on the faces, and the adjustment to the rare."""
    pixels, present_NA = framed(faces.pixels, kept.size), faces.labels_NA
    trained_NA, kept_NA = logits_of(trained, pixels), logits_of(kept, pixels)
    found = sigmoid_temperatures(kept_NA, present_NA)
    temperature = plain(found.temperature, DIGITS)
    adjustment = adjusted(kept_NA / temperature, present_NA)
    shift = plain(adjustment.shift_A.tolist(), DIGITS)
    scores = {
        "as learnt": _sigmoid(kept_NA),
        "calibrated": _sigmoid(kept_NA / temperature),
        "calibrated and adjusted": _sigmoid(kept_NA / temperature - shift),
    }
    measured = {
        what: attribute_figures(scores_NA, present_NA, faces.names, rounds=0)
        for what, scores_NA in scores.items()
    }
    facts = {
        "calibration_of_scores": {
            "data": f"{len(faces):,} faces of CelebA's validation partition",
            "temperature": "of the least cross-entropy; one for all attributes or one each, "
            "whichever has less on the half of the faces that it was not fitted to",
            **{f"cross_entropy_{k}": v for k, v in found.cross_entropy.items()},
            "adjustment": "scores as if rare attributes were less rare: their log odds times "
            f"1 - share; the largest share that costs {100 * SPENT:g} points of mean accuracy "
            f"or fewer and leaves the expected calibration error at {CALIBRATED:g} or under",
            "share": adjustment.share,
            "figures there": {
                what: {name: figures[name] for name in SPENT_AND_WON}
                for what, figures in measured.items()
            },
        },
        "rounding": rounding(
            _sigmoid(trained_NA / temperature - shift),
            scores["calibrated and adjusted"],
            lambda scores_NA: scores_NA >= 0.5,
        ),
    }
    return Fitted(temperature, plain(facts, DIGITS), shift)


def tables(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest shows of a graph's figures."""
    shown = ("min_inter_eye_px", "metrics", "groups", "attributes")
    kept = ("reliable", "reliability")
    return {
        **{name: known(figures[name]) for name in shown if name in figures},
        **(by_size(figures) if "face_size" in figures else {}),
        **{name: figures[name] for name in kept if name in figures},
    }


def facts_of_celeba(rounds: Rounds) -> dict[str, Any]:
    """What the manifest says of MZTS's weights beside what is measured and counted."""
    hybrid = rounds[-1].get("stem") == "mobilenet"
    began = (
        [
            "Learning began from ImageNet's MobileNetV1 (TensorFlow's, Apache-2.0), whose "
            "photographs are for non-commercial research."
        ]
        if hybrid
        else []
    )
    return {
        "name": "mzts",
        "summary": "Sees forty attributes of a face: MZTS, a vision transformer in zones that "
        "distil themselves"
        + (", on the maps of a MobileNetV1," if hybrid else "")
        + " learnt from CelebA. The paper is known by its abstract: the settings are ours.",
        "licence": "the code that made them is Apache-2.0; of the weights see `terms`",
        "teacher": "none: the network's last zone teaches the others",
        "terms": [
            "CelebA's photographs are for non-commercial research: use these weights for research "
            "and evaluation.",
            *began,
            "With licensed data: the same commands on your own crops, as attributes.csv beside "
            "crops.zip (`train mzts --train FOLDER`, then this export with --facts), make "
            "weights whose terms are yours.",
        ],
        "data": {
            "learnt from": f"{rounds[-1].get('faces') or 0:,} faces of CelebA's training "
            "partition, aligned to 136 x 112 px",
            "chosen and calibrated on": "CelebA's validation partition; nobody is in two",
            "tested on": "CelebA's test partition",
            "reliable": f"a balanced accuracy of {RELIABLE:g} or more on the validation partition; "
            "the others are left out of answers unless asked for",
        },
        "limits": [
            "The labels are one company's annotators' and noisy: many attributes are matters of "
            "opinion (Attractive, Big_Nose, Oval_Face, Young), and photographs of one person "
            "disagree. An answer says what an annotator would have written.",
            "Male is how annotators sorted celebrities into two; it says nothing of anybody's "
            "gender.",
            "Celebrities, photographed at events, mostly adults and made up: other people are "
            "seen worse. `groups` compares halves of CelebA by its own labels; ages and peoples "
            "are not told, so no more can be given. Measure on your own people first.",
            "CelebA's photographs end close to the face: its crops are black beyond, where others "
            "show what stands around. What that costs on other photographs was not measured.",
            "Mean accuracy flatters: the majority's answer alone reaches what stands beside it. "
            "Balanced accuracy is what the network tells.",
            "Scores are calibrated for faces like CelebA's and then moved towards rare attributes "
            "by the share that calibration_of_scores tells: what is rare is found more often, at a "
            "confidence that is a little too high.",
            "Eyes closer than min_inter_eye_px are not answered.",
        ],
    }


def _sigmoid(logits_NA: NDArray[np.float64]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits_NA))
    return scores


TASK = Task(
    name="attributes",
    read=read_weights,
    held_out=held_out,
    fit=fit,
    proof=lambda _, faces: spread(framed(faces.pixels, CROP)),
    graph=attributes_graph,
    evaluate=evaluate,
    tables=tables,
    facts=facts_of_celeba,
)

if __name__ == "__main__":
    commands(TASK, __doc__)
