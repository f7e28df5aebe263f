"""PAtt-Lite becomes the artefact that names expressions: one graph, manifest and card.

    python -m export.expression make runs/patt-lite/best.safetensors \
        training/weights/patt-lite.safetensors service/models/patt-lite

The graph takes crops uint8 (n, S, S, 3) RGB, S the size that the network was built for, and gives
`scores`, a distribution over the eight classes: softmax(logits / temperature). The temperature is
fitted to FERPlus's validation part, by the labels that accuracy is measured by.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from export.classifier import Task, by_size, commands, known, spread
from export.graph import Distribution, Images, Pixels, proven_graph
from export.kept import Fitted, Rounds, rounding
from training.checkpoint import rounds_of
from training.classification import logits_of
from training.data.expressions import CLASSES, ExpressionSet
from training.data.fer import read_ferplus
from training.data.framed import framed
from training.evaluate.expression import expression_figures
from training.evaluate.figures import plain
from training.evaluate.on_ferplus import RULES, evaluate
from training.evaluate.temperature import softmax_temperature
from training.expression import network_of, part
from training.networks.patt_lite import PAttLite
from training.recipes.expression import Recipe

RULE = RULES[0]
DIGITS = 4


def expression_graph(network: PAttLite, crops: Images, fitted: Fitted) -> bytes:
    """The network as a graph from crops uint8 (n, S, S, 3) RGB to a calibrated distribution.

    fitted: one temperature. A pixel p enters as p / 127.5 - 1. Raises as graph.proven_graph does: a
    network whose attention runs over the batch is refused, for a face's scores would depend on the
    faces beside it."""
    assert isinstance(fitted.temperature, float)
    return proven_graph(network, Pixels(), Distribution(fitted.temperature), crops)


def read_weights(path: Path) -> tuple[PAttLite, Rounds, list[str]]:
    """The network that a run left as safetensors, the rounds that it went through, and its classes
    in the order of the logits: those that the last round names, or else FERPlus's eight.

    Raises ValueError where the file does not tell, and for another network's."""
    rounds, tensors = rounds_of(path), load_file(path)
    if "classify.bias" not in tensors:
        raise ValueError(f"{path} holds no PAtt-Lite: {rounds[-1].get('name')} trained it")
    known = {field.name for field in fields(Recipe)}
    recipe = Recipe(**{name: value for name, value in rounds[-1].items() if name in known})
    count = len(tensors["classify.bias"])
    classes = rounds[-1].get("classes") or (list(CLASSES) if count == len(CLASSES) else None)
    if classes is None:
        raise ValueError(f"{path} does not name its {count} classes")
    network = network_of(recipe, count)
    network.load_state_dict(tensors)
    return network.eval(), rounds, classes


def held_out(data: Path) -> ExpressionSet:
    """FERPlus's validation part below data, its labels by RULE."""
    faces = read_ferplus(data / "ferplus", rule=RULE)
    return part(faces, faces.split_N == "validation")


def fit(trained: PAttLite, kept: PAttLite, faces: ExpressionSet) -> Fitted:
    """The temperature of the least cross-entropy on the faces."""
    pixels, labels_N = framed(faces.pixels, (kept.size, kept.size)), faces.labels_N
    trained_NK, kept_NK = logits_of(trained, pixels), logits_of(kept, pixels)
    temperature = round(softmax_temperature(kept_NK, labels_N), DIGITS)
    before, after = (
        expression_figures(_softmax(kept_NK / t), labels_N, faces.classes, rounds=0)
        for t in (1.0, temperature)
    )
    facts = {
        "calibration_of_scores": {
            "data": f"{len(faces):,} faces of FERPlus's validation part, labels by {RULE!r}",
            "temperature": "of the least cross-entropy; it changes no answer",
            "expected_calibration_error_there": after["expected_calibration_error"],
            "expected_calibration_error_without": before["expected_calibration_error"],
        },
        "rounding": rounding(
            _softmax(trained_NK / temperature),
            _softmax(kept_NK / temperature),
            lambda scores_NK: scores_NK.argmax(1),
        ),
    }
    return Fitted(temperature, plain(facts, DIGITS))


def tables(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest shows of a graph's figures."""
    shown = ("min_inter_eye_px", "metrics", "expressions", "expressions_on_lfw")
    kept = ("confusion", "reliability")
    return {
        **{name: known(figures[name]) for name in shown if name in figures},
        **(by_size(figures) if "face_size" in figures else {}),
        **{name: figures[name] for name in kept if name in figures},
    }


def facts_of_ferplus(rounds: Rounds) -> dict[str, Any]:
    """What the manifest says of PAtt-Lite's weights beside what is measured and counted.

    Raises ValueError for weights that were learnt from another set."""
    learnt_from = {round_.get("data", "ferplus") for round_ in rounds}
    if learnt_from != {"ferplus"}:
        raise ValueError(f"learnt from {', '.join(sorted(learnt_from))}: say its facts (--facts)")
    return {
        "name": "patt-lite",
        "summary": "Names the expression of a face, one of eight: PAtt-Lite (a truncated "
        "MobileNetV1, patch extraction, attention over the patches of one face), learnt from "
        "FERPlus. It names what a face shows, not what a person feels.",
        "licence": "the code that made them is Apache-2.0; of the weights see `terms`",
        "teacher": "none",
        "terms": [
            "FER2013's photographs, which FERPlus labels, were collected from the web for "
            "research: use these weights for research and evaluation.",
            "Learning began from ImageNet's MobileNetV1 (TensorFlow's, Apache-2.0), whose "
            "photographs are for non-commercial research.",
            "With licensed data: the same commands on your own faces and votes, in FERPlus's form "
            "(fer2013new.csv beside the images; `train patt-lite --train FOLDER`, then this export "
            "with --facts), make weights whose terms are yours.",
        ],
        "data": {
            "learnt from": f"{rounds[-1].get('faces') or 0:,} images of FERPlus's training part, "
            "48 x 48 px, grey; those that equal a held-out one to the pixel were left out",
            "labels": "ten people voted on each image; learnt are the shares of their votes",
            "chosen and calibrated on": "FERPlus's validation part, labels by 'majority'",
            "tested on": "FERPlus's test part, and photographs of LFW in colour, whose expressions "
            "are noisy: mostly neutral and happiness, and too few of the others to tell much",
            "majority": "FERPlus's own rule: single votes do not count, and more than half of the "
            "others must be for one of the eight; the rest of the test part has no label",
            "argmax8": "the class with most votes, however few; images that most took for no face "
            "are left out",
        },
        "limits": [
            "An expression is not an emotion: what was learnt is which of eight words ten people "
            "chose for a picture. Nothing is known of what the pictured people felt, and nothing "
            "about a person can be concluded from the answer.",
            "Inferring emotions of people at work and in education, but for medical and safety "
            "reasons, is forbidden in the European Union (AI Act, article 5); a deployment can "
            "turn expression off.",
            "The photographs are small, grey and from the web, many of them posed or of actors. "
            "Ages, peoples and cultures are not told, so no figure by group can be given; "
            "expect them to differ.",
            "disgust, contempt and fear are rare in the data: see the figures of each class before "
            "you rely on one.",
            "In colour little is known but neutral and happiness: LFW, 7,410 photographs.",
            "Smaller faces than min_inter_eye_px are not answered; blur and turned heads cost "
            "accuracy above it too.",
        ],
    }


def _softmax(logits_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
    scores: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return scores


TASK = Task(
    name="expression",
    read=read_weights,
    held_out=held_out,
    fit=fit,
    proof=lambda network, faces: spread(framed(faces.pixels, (network.size, network.size))),
    graph=expression_graph,
    evaluate=evaluate,
    tables=tables,
    facts=facts_of_ferplus,
)

if __name__ == "__main__":
    commands(TASK, __doc__)
