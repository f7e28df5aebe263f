"""A trained network becomes the artefact that the service serves: one graph, manifest and card.

    python -m export.recognition graph WEIGHTS.safetensors service/models/ecacface-mobile \
        --crops CSV
    python -m training evaluate service/models/ecacface-mobile/model.onnx --out FIGURES.json
    python -m export.recognition card WEIGHTS.safetensors service/models/ecacface-mobile \
        FIGURES.json [--facts FACTS.json]

Whatever network the recipe names: MobileFaceNet and IR with any attention, SRANet. The graph gives
512 numbers of unit length; the network's normalisation, its recipe's pixel_scale, is inside.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from export.folder import learnt, put_graph, put_manifest, read_facts, said_in, two_steps
from export.graph import Images, Pixels, UnitLength, proven_graph, real_crops
from service.decision import Calibration
from training.checkpoint import rounds_of, warm_up
from training.evaluate.populations import side_by_side
from training.recognition import network_of, recipe_of

SIDE = 112
ABLATION = Path(__file__).resolve().parents[1] / "docs" / "ablation.json"
FIGURES = ("sha256", "metrics", "calibration", "lfw_failing_pairs")  # what a card takes
FACES_OF_POPULATIONS = (
    "FairFace's faces that training leaves out (every tenth), as chips that end inside the "
    "template, mirrored beyond; children are in no other group than theirs and the whole"
)


def recognition_graph(network: nn.Module, crops: Images, pixel_scale: float = 127.5) -> bytes:
    """The network as a graph from crops uint8 (n, 112, 112, 3) RGB to unit embeddings, proven.

    pixel_scale: a pixel p enters the network as (p - 127.5) / pixel_scale. Raises as
    graph.proven_graph does."""
    return proven_graph(network, Pixels(scale=(pixel_scale,)), UnitLength(), crops)


def read_weights(path: Path) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The network that a run left as safetensors, and the recipes that it went through.

    Raises ValueError where the file does not tell, and where it holds another network than its
    last recipe names.
    """
    network: nn.Module = network_of(recipe_of(rounds_of(path)[-1]))
    rounds = warm_up(path, network)
    return network.eval(), rounds


def write_graph(weights: Path, folder: Path, crops: Path) -> None:
    """model.onnx in the folder, proven on real crops first. crops: as graph.real_crops takes."""
    network, rounds = read_weights(weights)
    pixel_scale = recipe_of(rounds[-1]).pixel_scale
    put_graph(folder, recognition_graph(network, real_crops(crops, SIDE, SIDE), pixel_scale))


def write_card(
    weights: Path,
    folder: Path,
    figures: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """manifest.json and CARD.md beside model.onnx.

    facts: what is to be said of other weights than this repository's, whose ablation is quoted
    where it is there. Raises ValueError where they are needed and absent, and as
    folder.put_manifest does."""
    network, rounds = read_weights(weights)
    if missing := [name for name in FIGURES if name not in figures]:
        raise ValueError(f"the figures lack {', '.join(missing)}: a card needs them")
    if facts is None and rounds[-1]["name"] != "ecacface-mobile":
        raise ValueError(f"{weights} was trained by {rounds[-1]['name']}: say its facts (--facts)")
    said = facts_of_ecacface() if facts is None else facts
    quoted = said_in(ABLATION) if facts is None else {}
    manifest = {
        "task": "recognition",
        **said,
        **strangers(figures),
        **populations(figures),
        **groups_tested(figures),
        **quoted,
        **learnt(network, rounds),
    }
    put_manifest(folder, manifest, {key: figures[key] for key in FIGURES})


def strangers(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What `evaluate` found of strangers by group, where it had UTKFace: each group's FMR."""
    groups = next((graph.get("groups") for graph in figures.get("graphs", ())[:1]), None)
    if not groups:
        return {}
    rates = {
        group if attribute == "all" else f"{attribute} {group}": round(found["fmr"], 4)
        for attribute in ("all", "sex", "age", "ethnicity")
        for group, found in groups["fmr"].get(attribute, {}).items()
        if found.get("fmr") is not None
    }
    facts = {"data": groups["data"], "at FMR on the calibration": groups["fmr_on_calibration"]}
    return {"false_matches_of_strangers": {**facts, **rates}}


def populations(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The calibration's populations side by side, where `evaluate` had strangers to measure on."""
    calibration = Calibration.from_manifest(figures["calibration"])
    if not calibration.populations:
        return {}
    first: Mapping[str, Any] = next(iter(figures.get("graphs", ())), {})
    probe = first.get("probe")
    facts: dict[str, Any] = {"faces": FACES_OF_POPULATIONS}
    if probe:
        accuracy = ", ".join(f"{name} {share:.1%}" for name, share in probe["accuracy"].items())
        facts["predicted"] = (
            f"by a linear probe on {probe['features']}, fitted to {probe['fitted to']}, "
            f"cross-validated accuracy there: {accuracy}"
        )
    return {"false_matches_by_population": {**facts, "at_1e-3": side_by_side(calibration)}}


def groups_tested(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The FMR within the groups of a test set at the thresholds for 1e-3, a row a group."""
    first: Mapping[str, Any] = next(iter(figures.get("graphs", ())), {})
    found = first.get("tested_groups")
    if not found:
        return {}
    columns = {
        f"at {cut['similarity']:.3f}, {edge}, {population}": found["fmr"][population][edge]
        for population, cut in found["thresholds"].items()
        for edge in found["fmr"][population]
    }
    groups = [("all", "all")] + [
        (attribute, group)
        for attribute in ("race", "sex", "age")
        for group in next(iter(columns.values()))[attribute]
    ]
    rows = {
        group if attribute == "all" else f"{attribute} {group}": {
            title: f"{fmr[attribute][group]['fmr']:.2g}"
            for title, fmr in columns.items()
            if fmr[attribute][group].get("fmr") is not None
        }
        for attribute, group in groups
    }
    return {"false_matches_tested_by_group": {"data": found["data"], "fmr": rows}}


def facts_of_ecacface() -> dict[str, Any]:
    """What the manifest says of ecacface-mobile's weights beside what is measured and counted."""
    return {
        "name": "ecacface-mobile",
        "summary": "Embeddings of aligned faces: ECACFace (ESCA attention in each of "
        "MobileFaceNet's 15 bottlenecks, CurricularFace), distilled from a teacher's answers.",
        "licence": "the code that made them is Apache-2.0; of the weights see `terms`",
        "terms": [
            "The training photographs (CelebA, PINS, VGGFace2, UTKFace) are for non-commercial "
            "research, and the teacher's own training data is unknown: use these weights for "
            "research and evaluation.",
            "With licensed data: the same commands on your own crops and teacher make weights "
            "whose terms are yours.",
        ],
        "data": {
            "labelled": "29,363 aligned crops of 1,041 people (CelebA's test part and photographs "
            "in the wild, PINS celebrities, VGGFace2)",
            "unlabelled": "4,000 crops of UTKFace",
            "chosen on": "1,769 crops of 88 other people",
            "calibrated on": "3,504 crops of 175 other people",
            "tested on": "LFW; people named or looking like one of its were left out of the rest",
        },
        "teacher": "a MobileFaceNet of 512 dimensions from an MIT package, training data unknown; "
        "its embeddings of the training crops were learnt from, its weights were not read",
        "limits": [
            "Distilled from one small teacher on few people: see metrics for what that gives.",
            "Strangers of other kinds than the calibration's people are confused far more often, "
            "children most: see false_matches_of_strangers, false_matches_by_population and "
            "false_matches_tested_by_group. Ask for population=worst or for one of them, or "
            "measure your own strangers, before you set a threshold for them.",
            "The calibration's people are mostly celebrities photographed at events; measure on "
            "your own people before a decision matters.",
        ],
    }


def main() -> None:
    def graph(a: argparse.Namespace) -> None:
        write_graph(a.weights, a.folder, a.crops)

    def card(a: argparse.Namespace) -> None:
        facts = read_facts(a.facts) if a.facts else None
        write_card(a.weights, a.folder, json.loads(a.figures.read_text()), facts)

    two_steps("export.recognition", __doc__, graph, card)


if __name__ == "__main__":
    main()
