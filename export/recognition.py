"""A trained network becomes the artefact that the service serves: one graph, manifest and card.

    python -m export.recognition graph WEIGHTS.safetensors service/models/ecacface-mobile --crops
    CSV python -m training evaluate service/models/ecacface-mobile/model.onnx --out FIGURES.json
    python -m export.recognition card WEIGHTS.safetensors service/models/ecacface-mobile
    FIGURES.json

The graph takes uint8 crops and gives unit embeddings; normalisation is inside. It is written only
if ONNX Runtime's answers are those of PyTorch, at several batch sizes and whatever a row's
neighbours are. The card's figures are then measured on that graph, and on no other: its hash is in
both."""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from export.card import card, git_revision
from service.inference.artefact import describe_graph, golden_crops
from service.inference.session import open_session
from training.checkpoint import rounds_of
from training.data.crops import read_crops
from training.recognition import network_of, recipe_of

OPSET = 18
SPACE_VERSION = 1  # raised with every new set of weights: their embeddings cannot be compared
COSINE = 0.99999
DENORMAL = 1e-30
PIXEL_SCALE = 127.5


class Deployed(nn.Module):
    """A recognition network behind the graph contract.

    crops uint8 (n, 112, 112, 3) RGB -> embeddings float32 (n, D), unit length. The copy inside is
    in evaluation mode, each PReLU written relu(x) - a relu(-x), which ONNX Runtime runs two to
    three times as fast as its own PRelu."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = _with_plain_prelu(copy.deepcopy(network))
        for weights in self.network.state_dict().values():
            # Denormal numbers cost ONNX Runtime several times the work and change no answer.
            weights[weights.abs() < DENORMAL] = 0
        self.eval()

    def forward(self, crops: Tensor) -> Tensor:
        pixels = crops.permute(0, 3, 1, 2).float()
        embeddings: Tensor = self.network((pixels - 127.5) / PIXEL_SCALE)
        return embeddings / embeddings.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)


class _PlainPReLU(nn.Module):
    def __init__(self, slopes_C: Tensor) -> None:
        super().__init__()
        self.slopes = nn.Parameter(slopes_C.detach().clone()[:, None, None])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(x_BCHW) - self.slopes * F.relu(-x_BCHW)


def _with_plain_prelu(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.PReLU):
            setattr(module, name, _PlainPReLU(child.weight))
        else:
            _with_plain_prelu(child)
    return module


def recognition_graph(network: nn.Module, crops: NDArray[np.uint8]) -> bytes:
    """The network as a serialised ONNX graph, proven on the crops.

    crops: uint8 (n, 112, 112, 3), n >= 4, real ones. Raises ValueError where the graph and PyTorch
    differ (cosine under 0.99999 at batch 1, 2 or n), where a permutation of the rows changes a row,
    or where a batch differs from its rows alone."""
    deployed = Deployed(network)
    program = torch.onnx.export(
        deployed,
        (torch.from_numpy(crops[:2]),),
        input_names=["crops"],
        output_names=["embeddings"],
        dynamic_shapes={"crops": {0: torch.export.Dim("n")}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise ValueError("the exporter gave no graph")
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    graph: bytes = model.SerializeToString()
    _prove(graph, deployed, crops)
    return graph


def _strip(model: onnx.ModelProto) -> None:
    """Leaves out the exporter's traces, which hold source lines and paths of this machine."""
    del model.metadata_props[:]
    for part in (model.graph, *model.functions):
        del part.metadata_props[:]
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        del value.metadata_props[:]


def _prove(graph: bytes, deployed: Deployed, crops: NDArray[np.uint8]) -> None:
    session = open_session(graph, threads=1, device="cpu")

    def run(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        [embeddings] = session.run(np.ascontiguousarray(rows))
        return embeddings

    with torch.no_grad():
        wanted = deployed(torch.from_numpy(crops)).numpy()
    for size in (1, 2, len(crops)):
        cosines = (run(crops[:size]) * wanted[:size]).sum(1)
        if cosines.min() < COSINE:
            raise ValueError(f"batch {size}: cosine {cosines.min():.7f} to PyTorch, under {COSINE}")
    together = run(crops)
    order = np.random.default_rng(0).permutation(len(crops))
    alone = np.concatenate([run(crops[i : i + 1]) for i in range(len(crops))])
    for name, other in (("permuted", run(crops[order])[np.argsort(order)]), ("alone", alone)):
        if (difference := float(np.abs(other - together).max())) > 1e-5:
            raise ValueError(f"rows {name} differ by {difference:.2e} from the batch")


def read_weights(path: Path) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The network that a run left as safetensors, and the recipes that it went through.

    Raises ValueError where the file does not tell, and for a network that takes other pixels than
    the graph would give it.
    """
    rounds = rounds_of(path)
    recipe = recipe_of(rounds[-1])
    if recipe.pixel_scale != PIXEL_SCALE:
        raise ValueError(
            f"{path} was trained on (p - 127.5) / {recipe.pixel_scale:g}; "
            f"the graph divides by {PIXEL_SCALE:g}"
        )
    network: nn.Module = network_of(recipe)
    network.load_state_dict(load_file(path))
    return network.eval(), rounds


def write_graph(weights: Path, folder: Path, crops: NDArray[np.uint8]) -> None:
    """model.onnx in the folder, proven on the crops first."""
    network, _ = read_weights(weights)
    graph = recognition_graph(network, crops)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph)


def write_card(weights: Path, folder: Path, figures: dict[str, Any]) -> None:
    """manifest.json and CARD.md beside model.onnx.

    Raises ValueError where the figures were measured on another graph.
    """
    _, rounds = read_weights(weights)
    graph = (folder / "model.onnx").read_bytes()
    described = describe_graph(graph, golden_crops().shape)
    if figures["sha256"] != described["sha256"]:
        raise ValueError(f"the figures are of {figures['sha256']}, not of {folder / 'model.onnx'}")
    manifest = {
        **facts_of_ecacface(rounds),
        **described,
        "bytes": len(graph),
        "opset": OPSET,
        "revision": git_revision(),
        "metrics": figures["metrics"],
        "calibration": figures["calibration"],
        "lfw_failing_pairs": figures["lfw_failing_pairs"],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (folder / "CARD.md").write_text(_page(manifest))


def _page(manifest: dict[str, Any]) -> str:
    """The card, with the calibration's curve as its picture in the place of its numbers."""
    calibration = dict(manifest["calibration"])
    points = {f"FMR {row['target_fmr']:g}": row for row in calibration.pop("thresholds")}
    calibration = {k: v for k, v in calibration.items() if k not in ("curve", "tail")}
    failing = manifest["lfw_failing_pairs"]
    shown = {k: v for k, v in manifest.items() if k not in ("calibration", "lfw_failing_pairs")}
    shown |= {"calibration": calibration, "operating_points": points, "lfw_failing_pairs": failing}
    return card(shown) + "\n![FMR and FNMR by threshold](calibration.png)\n"


def facts_of_ecacface(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of ecacface-mobile beside what is measured. rounds: read_weights'."""
    return {
        "name": "ecacface-mobile",
        "summary": "Embeddings of aligned faces: ECACFace (ESCA attention in each of "
        "MobileFaceNet's 15 bottlenecks, CurricularFace), distilled from a teacher's answers.",
        "task": "recognition",
        "space": f"ecacface-mobile/{SPACE_VERSION}",
        "licence": "the code that made them is Apache-2.0; of the weights see `terms`",
        "parameters": 1_229_377,
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
        "crops_seen": sum(round_["steps"] * round_["batch"] for round_ in rounds),
        "training": {f"round {i}": round_ for i, round_ in enumerate(rounds, 1)},
        "limits": [
            "Distilled from one small teacher on few people: see metrics for what that gives.",
            "Error rates by age, sex or ethnicity have not been measured.",
            "The calibration's people are mostly celebrities photographed at events; measure on "
            "your own people before a decision matters.",
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export.recognition",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, dest="step")
    for step, help_ in (("graph", "write model.onnx"), ("card", "write manifest.json and CARD.md")):
        sub = steps.add_parser(step, help=help_)
        sub.add_argument("weights", type=Path)
        sub.add_argument("folder", type=Path)
        if step == "graph":
            sub.add_argument(
                "--crops", type=Path, required=True, help="a csv beside its zip of crops"
            )
            sub.add_argument("--cache", type=Path, default=Path("runs/cache"))
        else:
            sub.add_argument("figures", type=Path)
    a = parser.parse_args()
    if a.step == "graph":
        write_graph(a.weights, a.folder, np.array(read_crops(a.crops, a.cache).pixels_NHWC[:16]))
    else:
        write_card(a.weights, a.folder, json.loads(a.figures.read_text()))


if __name__ == "__main__":
    main()
