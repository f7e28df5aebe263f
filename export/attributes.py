"""MZTS becomes the artefact that sees attributes: one graph, manifest and card.

    python -m export.attributes graph WEIGHTS.safetensors FOLDER --crops IMAGES --temperature 1.2
    python -m export.attributes card WEIGHTS.safetensors FOLDER FIGURES.json --facts FACTS.json

The graph takes crops uint8 (n, H, W, 3) RGB in the wide alignment, 136 x 112 for the service, and
gives `scores`, the probability that each of the 40 attributes is there: sigmoid(logits /
temperature), one temperature or one an attribute ("[1.1, 0.9, ...]"), fitted on people whom no
training has seen.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from export.folder import put_classifier, put_graph, read_facts, two_steps
from export.graph import Images, Pixels, Presence, proven_graph, real_crops
from training.checkpoint import rounds_of
from training.networks.mzts import MZTS

BUILT_BY = ("patch", "width", "depth", "zones", "memory")  # fields of a round that MZTS takes


def attributes_graph(
    network: MZTS, pixels: Pixels, crops: Images, temperature: float | list[float] = 1.0
) -> bytes:
    """The network as a graph from crops uint8 (n, H, W, 3) RGB to calibrated probabilities.

    pixels: how they enter the network, pixels_of its last round. Raises as graph.proven_graph does,
    and ValueError for another number of temperatures than attributes."""
    attributes = network.heads[-1][-1].out_features
    if isinstance(temperature, list) and len(temperature) != attributes:
        raise ValueError(f"{len(temperature)} temperatures for {attributes} attributes")
    return proven_graph(network, pixels, Presence(temperature), crops)


def read_weights(path: Path) -> tuple[MZTS, list[dict[str, Any]]]:
    """The network that a run left as safetensors, and the rounds that it went through; the last
    names its `classes` in the order of the logits and its `size` (height, width).

    Raises ValueError where the file does not tell."""
    rounds = rounds_of(path)
    if missing := [name for name in ("classes", "size") if not rounds[-1].get(name)]:
        raise ValueError(f"{path} does not tell its {' and '.join(missing)}")
    built_by = {name: rounds[-1][name] for name in BUILT_BY if name in rounds[-1]}
    size, attributes = tuple(rounds[-1]["size"]), len(rounds[-1]["classes"])
    network = MZTS(size, attributes=attributes, **built_by)
    network.load_state_dict(load_file(path))
    return network.eval(), rounds


def pixels_of(round_: Mapping[str, Any]) -> Pixels:
    """The round's `pixel_mean` and `pixel_scale`, one number or three; 127.5 where it has none."""
    told = [round_.get(name, 127.5) for name in ("pixel_mean", "pixel_scale")]
    mean, scale = (tuple(t) if isinstance(t, list) else (float(t),) for t in told)
    return Pixels(mean, scale)


def write_graph(
    weights: Path, folder: Path, crops: Path, temperature: float | list[float] = 1.0
) -> None:
    """model.onnx in the folder, proven on real crops first. crops: as graph.real_crops takes."""
    network, rounds = read_weights(weights)
    proof = real_crops(crops, *network.size)
    put_graph(folder, attributes_graph(network, pixels_of(rounds[-1]), proof, temperature))


def write_card(
    weights: Path, folder: Path, figures: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """manifest.json and CARD.md beside model.onnx. figures: `sha256` of the graph and `metrics`.

    Raises as folder.put_classifier does."""
    network, rounds = read_weights(weights)
    put_classifier(folder, "attributes", network, rounds, figures, facts)


def main() -> None:
    def graph(a: argparse.Namespace) -> None:
        write_graph(a.weights, a.folder, a.crops, a.temperature)

    def card(a: argparse.Namespace) -> None:
        write_card(a.weights, a.folder, json.loads(a.figures.read_text()), read_facts(a.facts))

    two_steps(
        "export.attributes",
        __doc__,
        graph,
        card,
        temperature="of the sigmoid: a number, or a list of one an attribute",
    )


if __name__ == "__main__":
    main()
