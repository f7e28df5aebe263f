"""PAtt-Lite becomes the artefact that names expressions: one graph, manifest and card.

    python -m export.expression graph WEIGHTS.safetensors FOLDER --crops IMAGES --temperature 1.2
    python -m export.expression card WEIGHTS.safetensors FOLDER FIGURES.json --facts FACTS.json

The graph takes crops uint8 (n, S, S, 3) RGB, S the size that the network was built for, and gives
`scores`, a distribution over the eight classes: softmax(logits / temperature), the temperature
being the one that was fitted on people whom no training has seen.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from export.folder import put_classifier, put_graph, read_facts, two_steps
from export.graph import Distribution, Images, Pixels, proven_graph, real_crops
from training.checkpoint import rounds_of
from training.networks.patt_lite import PAttLite

BUILT_BY = ("attention", "patches", "cut", "size")  # fields of a round that PAttLite takes


def expression_graph(network: PAttLite, crops: Images, temperature: float = 1.0) -> bytes:
    """The network as a graph from crops uint8 (n, S, S, 3) RGB to a calibrated distribution.

    A pixel p enters as p / 127.5 - 1. Raises as graph.proven_graph does: a network whose attention
    runs over the batch is refused, for a face's scores would depend on the faces beside it."""
    return proven_graph(network, Pixels(), Distribution(temperature), crops)


def read_weights(path: Path) -> tuple[PAttLite, list[dict[str, Any]]]:
    """The network that a run left as safetensors, and the rounds that it went through; the last
    names its `classes` in the order of the logits.

    Raises ValueError where the file does not tell."""
    rounds = rounds_of(path)
    if not rounds[-1].get("classes"):
        raise ValueError(f"{path} does not name its classes")
    built_by = {name: rounds[-1][name] for name in BUILT_BY if name in rounds[-1]}
    network = PAttLite(len(rounds[-1]["classes"]), **built_by)
    network.load_state_dict(load_file(path))
    return network.eval(), rounds


def write_graph(weights: Path, folder: Path, crops: Path, temperature: float = 1.0) -> None:
    """model.onnx in the folder, proven on real crops first. crops: as graph.real_crops takes."""
    network, _ = read_weights(weights)
    proof = real_crops(crops, network.size, network.size)
    put_graph(folder, expression_graph(network, proof, temperature))


def write_card(
    weights: Path, folder: Path, figures: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """manifest.json and CARD.md beside model.onnx. figures: `sha256` of the graph and `metrics`.

    Raises as folder.put_classifier does."""
    network, rounds = read_weights(weights)
    put_classifier(folder, "expression", network, rounds, figures, facts)


def main() -> None:
    def graph(a: argparse.Namespace) -> None:
        write_graph(a.weights, a.folder, a.crops, a.temperature)

    def card(a: argparse.Namespace) -> None:
        write_card(a.weights, a.folder, json.loads(a.figures.read_text()), read_facts(a.facts))

    two_steps("export.expression", __doc__, graph, card, temperature="of the softmax")


if __name__ == "__main__":
    main()
