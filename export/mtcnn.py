"""MTCNN's three networks as ONNX graphs, with the weights that facenet-pytorch ships (MIT).

    python -m export.mtcnn [--wheel PATH]

The weights are read out of the wheel; the package is never imported, for its pins hold torch back.
Zhang et al. 2016 (arXiv:1604.02878): P-Net proposes boxes on every scale, R-Net and O-Net refine.
Each graph takes `pixels`, float32 (n, 3, h, w) RGB in [0, 255], and gives

    scores     float32, a face's probability: P-Net (n, h', w'), R-Net and O-Net (n,)
    offsets    float32, of x1, y1, x2, y2 in the box's widths and heights: (n, 4, h', w') or (n, 4)
    landmarks  O-Net alone: float32 (n, 10), five x, then five y, in the box's widths and heights

A graph computes what the network's plain form does (`plain_outputs`), to float32's rounding, but is
laid out for speed; each rewriting is explained where it is done. docs/detection.md has the timings.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch.nn import functional

from export.card import card, git_revision
from service.inference.artefact import describe_graph, golden_pattern
from service.inference.session import open_session

FOLDER = Path(__file__).parents[1] / "service" / "models" / "mtcnn"
WHEEL = "facenet_pytorch-2.6.0-py3-none-any.whl"
WHEEL_SHA256 = "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca"
OPSET = 17
TOLERANCE = 1e-5  # of an output, absolute: float32's rounding in another order

# The pooling's side behind each convolution (0: none; stride 2, the last window may be cut), and
# the layers that give scores, offsets and landmarks.
POOLS = {"pnet": (2, 0, 0), "rnet": (3, 3, 0), "onet": (3, 3, 2, 0)}
HEADS = {
    "pnet": {"scores": "conv4_1", "offsets": "conv4_2"},
    "rnet": {"scores": "dense5_1", "offsets": "dense5_2"},
    "onet": {"scores": "dense6_1", "offsets": "dense6_2", "landmarks": "dense6_3"},
}
GOLDEN_SIDES = {"pnet": 25, "rnet": 24, "onet": 48}  # P-Net takes any size from 12 x 12

Array = NDArray[Any]
Weights = dict[str, Array]  # by facenet-pytorch's names, in its shapes


def export_mtcnn(wheel: Path, folder: Path) -> None:
    """Writes the three graphs, manifest.json, CARD.md and the weights' LICENSE into `folder`.

    Raises ValueError when the wheel is another one or a graph strays from the network's plain form.
    """
    _check_wheel(wheel)
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {}
    for name in POOLS:
        weights = read_weights(wheel, name)
        model = build_graph(name, weights)
        graphs[name] = _described(name, model, weights)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    manifest = _manifest(graphs)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (folder / "CARD.md").write_text(card(manifest))
    with zipfile.ZipFile(wheel) as files:
        licence = files.read("facenet_pytorch-2.6.0.dist-info/LICENSE.md")
    (folder / "LICENSE").write_bytes(licence)


def read_weights(wheel: Path, name: str) -> Weights:
    """The weights of pnet, rnet or onet out of facenet-pytorch's wheel, float32."""
    with zipfile.ZipFile(wheel) as files:
        data = io.BytesIO(files.read(f"facenet_pytorch/data/{name}.pt"))
    return {key: value.numpy() for key, value in torch.load(data, weights_only=True).items()}


def plain_outputs(name: str, weights: Weights, pixels: Array) -> dict[str, Array]:
    """What the network gives for pixels, in its plain form and by torch: the graph's yardstick."""
    w = {key: torch.from_numpy(value) for key, value in weights.items()}
    x = (torch.from_numpy(pixels) - 127.5) * 0.0078125
    for index, pool in enumerate(POOLS[name], 1):
        x = functional.conv2d(x, w[f"conv{index}.weight"], w[f"conv{index}.bias"])
        x = functional.prelu(x, w[f"prelu{index}.weight"])
        x = functional.max_pool2d(x, pool, stride=2, ceil_mode=True) if pool else x
    if name != "pnet":  # the first weights saw transposed pictures: width runs before height
        dense = f"dense{len(POOLS[name]) + 1}"
        x = functional.linear(
            x.permute(0, 3, 2, 1).flatten(1), w[f"{dense}.weight"], w[f"{dense}.bias"]
        )
        x = functional.prelu(x, w[f"{dense.replace('dense', 'prelu')}.weight"])
    rows = x.movedim(1, -1)
    outputs = {
        head: functional.linear(rows, w[f"{layer}.weight"].flatten(1), w[f"{layer}.bias"]).movedim(
            -1, 1
        )
        for head, layer in HEADS[name].items()
    }
    outputs["scores"] = functional.softmax(outputs["scores"], 1)[:, 1]
    return {head: output.numpy() for head, output in outputs.items()}


def build_graph(name: str, weights: Weights) -> onnx.ModelProto:
    """The network as an ONNX model that computes what plain_outputs does, in less time."""
    graph = _Graph()
    first, second, *later = POOLS[name]
    x, sign = _first_layer(graph, weights, first)
    second_weight = weights["conv2.weight"] * sign[:, None, None]
    x = graph.convolution(x, second_weight, weights["conv2.bias"])
    x = graph.pool(_prelu(graph, x, weights["prelu2.weight"][:, None, None]), second)
    if name == "pnet":
        x = graph.convolution(x, weights["conv3.weight"], weights["conv3.bias"])
        return _model(name, graph, _map_heads(graph, x, weights))
    for index, pool in enumerate(later, 3):
        x = graph.convolution(x, weights[f"conv{index}.weight"], weights[f"conv{index}.bias"])
        x = graph.pool(_prelu(graph, x, weights[f"prelu{index}.weight"][:, None, None]), pool)
    return _model(name, graph, _vector_heads(graph, x, name, weights))


class _Graph:
    """An ONNX graph that grows: each method adds a node and gives its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, array: Array) -> str:
        name = f"constant_{len(self.constants)}"
        array = array if array.dtype == np.int64 else array.astype(np.float32)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def convolution(self, x: str, weight_OIHW: Array, bias: Array | None = None) -> str:
        inputs = [x, self.constant(weight_OIHW)] + ([] if bias is None else [self.constant(bias)])
        return self.add("Conv", *inputs, kernel_shape=weight_OIHW.shape[2:])

    def dense(self, x: str, weight_OI: Array, bias: Array) -> str:
        return self.add("Gemm", x, self.constant(weight_OI), self.constant(bias), transB=1)

    def pool(self, x: str, side: int) -> str:
        """Max-pooling, stride 2, the last window may be cut. side 0: nothing."""
        if not side:
            return x
        return self.add("MaxPool", x, kernel_shape=(side, side), strides=(2, 2), ceil_mode=1)


def _prelu(graph: _Graph, x: str, slope: Array) -> str:
    """PReLU with slopes a <= 1 as a x + relu((1 - a) x): runtimes have no fast one of their own."""
    assert (slope <= 1).all()
    straight = graph.add("Mul", x, graph.constant(slope))
    bent = graph.add("Mul", x, graph.constant(1 - slope))
    return graph.add("Add", straight, graph.add("Relu", bent))


def _first_layer(graph: _Graph, weights: Weights, pool: int) -> tuple[str, Array]:
    """Normalisation, first convolution, pooling and PReLU, and the signs that its channels bear.

    The normalisation (p - 127.5) / 128 is linear and goes into the convolution. The PReLU stands
    behind the pooling, on a quarter of the pixels. For a channel with slope a >= 0 PReLU never
    falls, so it may change places with the maximum. For a < 0 it is max(x, a x), and the maximum
    over a window is max(max x, max a x): a x is one more channel of the convolution, and
    max(u, v) = v + relu(u - v). So every channel is straight(u) + relu(bent(u)) with two 1x1
    convolutions over the pooled channels u; for a > 1, which is not convex, its negative is.
    """
    slope = weights["prelu1.weight"].astype(np.float64)
    falling = np.flatnonzero(slope < 0)
    weight, bias = _normalising(weights["conv1.weight"], weights["conv1.bias"])
    weight = np.concatenate([weight, weight[falling] * slope[falling, None, None, None]])
    bias = np.concatenate([bias, bias[falling] * slope[falling]])
    inner, outer = _blocks(len(weight)), len(slope)
    straight, bent = np.zeros((outer, inner)), np.zeros((outer, inner))
    sign = np.where(slope <= 1, 1.0, -1.0)
    for channel, a in enumerate(slope):
        straight[channel, channel], bent[channel, channel] = (a, 1 - a) if a <= 1 else (-1, 1 - a)
    for extra, channel in enumerate(falling.tolist(), len(slope)):
        straight[channel], bent[channel] = np.eye(inner)[extra], np.eye(inner)[channel]
        bent[channel, extra] = -1
    empty = inner - len(weight)
    weight, bias = np.pad(weight, ((0, empty), *[(0, 0)] * 3)), np.pad(bias, (0, empty))
    x = graph.pool(graph.convolution("pixels", weight, bias), pool)
    relu = graph.add("Relu", graph.convolution(x, bent[:, :, None, None]))
    return graph.add("Add", graph.convolution(x, straight[:, :, None, None]), relu), sign


def _normalising(weight: Array, bias: Array) -> tuple[Array, Array]:
    """A convolution's weight and bias, float64, with (p - 127.5) / 128 before it taken in."""
    weight = weight.astype(np.float64) / 128
    return weight, bias - 127.5 * weight.sum(axis=(1, 2, 3))


def _blocks(channels: int) -> int:
    """The channels rounded up to whole blocks of ONNX Runtime's layout (16; 8 without AVX-512)."""
    return -(-channels // 16) * 16


def _map_heads(graph: _Graph, x: str, weights: Weights) -> list[str]:
    """P-Net's outputs from its third convolution: the last PReLU goes into both heads' weights."""
    slope = weights["prelu3.weight"][None, :, None, None]
    weight, bias = _joined_heads("pnet", weights)
    weight = weight.reshape(*weight.shape[:2], 1, 1)
    straight = graph.convolution(x, weight * slope, bias)
    bent = graph.convolution(graph.add("Relu", x), weight * (1 - slope))
    return _split_heads(graph, graph.add("Add", straight, bent), "pnet", weights)


def _vector_heads(graph: _Graph, x: str, name: str, weights: Weights) -> list[str]:
    """R-Net's or O-Net's outputs from its last convolution."""
    index = len(POOLS[name]) + 1
    channels = len(weights[f"conv{index - 1}.bias"])
    weight = _height_major(weights[f"dense{index}.weight"], channels)
    x = graph.dense(graph.add("Flatten", x), weight, weights[f"dense{index}.bias"])
    x = _prelu(graph, x, weights[f"prelu{index}.weight"])
    return _split_heads(graph, graph.dense(x, *_joined_heads(name, weights)), name, weights)


def _height_major(weight_OI: Array, channels: int) -> Array:
    """A dense weight over (width, height, channel), as facenet-pytorch flattens, over NCHW."""
    side = round((weight_OI.shape[1] / channels) ** 0.5)
    return (
        weight_OI.reshape(-1, side, side, channels).transpose(0, 3, 2, 1).reshape(weight_OI.shape)
    )


def _joined_heads(name: str, weights: Weights) -> tuple[Array, Array]:
    """One layer for all heads; of the two scores' logits only the difference, face less no face."""
    scores, *others = HEADS[name].values()
    parts = [
        (np.diff(weights[f"{scores}.{part}"], axis=0), *(weights[f"{o}.{part}"] for o in others))
        for part in ("weight", "bias")
    ]
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def _split_heads(graph: _Graph, x: str, name: str, weights: Weights) -> list[str]:
    """The outputs' names, cut out of the joined layer; the difference of logits becomes a score.

    Softmax of two is 1 / (1 + exp(-difference)). ONNX's Sigmoid is the same on paper, but ONNX
    Runtime's is a polynomial that is not monotonic next to 1, where many scores crowd and their
    order decides which boxes stay.
    """
    outputs, start = [], 0
    for head, layer in HEADS[name].items():
        rows = 1 if head == "scores" else len(weights[f"{layer}.bias"])
        bounds = (graph.constant(np.array([at])) for at in (start, start + rows, 1))
        outputs.append(graph.add("Slice", x, *bounds))
        start += rows
    against = graph.add("Exp", graph.add("Neg", outputs[0]))
    scores = graph.add("Reciprocal", graph.add("Add", against, graph.constant(np.array(1.0))))
    outputs[0] = graph.add("Squeeze", scores, graph.constant(np.array([1])))
    return outputs


def _model(name: str, graph: _Graph, outputs: list[str]) -> onnx.ModelProto:
    """The finished model, checked; its outputs bear the heads' names."""
    for output, head in zip(outputs, HEADS[name], strict=True):
        graph.nodes.append(helper.make_node("Identity", [output], [head]))
    side = ["h", "w"] if name == "pnet" else [GOLDEN_SIDES[name]] * 2
    entry = helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["n", 3, *side])
    tail = ["h_out", "w_out"] if name == "pnet" else []
    widths = {"scores": [], "offsets": [4], "landmarks": [10]}
    exits = [
        helper.make_tensor_value_info(head, onnx.TensorProto.FLOAT, ["n", *widths[head], *tail])
        for head in HEADS[name]
    ]
    built = helper.make_graph(graph.nodes, name, [entry], exits, graph.constants)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(built, opset_imports=[opset], ir_version=8, producer_name="mien")
    onnx.checker.check_model(model, full_check=True)
    return model


def _described(name: str, model: onnx.ModelProto, weights: Weights) -> dict[str, Any]:
    """The graph's entry in the manifest; ValueError when it strays from the plain network."""
    data = model.SerializeToString()
    shape = (1, 3, GOLDEN_SIDES[name], GOLDEN_SIDES[name])
    pixels = golden_pattern(shape).astype(np.float32)
    given = open_session(data, threads=1, device="cpu").run(pixels)
    for (head, plain), output in zip(
        plain_outputs(name, weights, pixels).items(), given, strict=True
    ):
        if output.shape != plain.shape or np.abs(output - plain).max() > TOLERANCE:
            raise ValueError(f"{name}'s {head} stray from the plain network")
    return {"file": f"{name}.onnx", "bytes": len(data), **describe_graph(data, shape)}


def _manifest(graphs: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "mtcnn",
        "summary": (
            "Finds faces and five landmarks of each: MTCNN's P-Net, R-Net and O-Net with "
            "facenet-pytorch's weights and findings. docs/detection.md measures both."
        ),
        "task": "detection",
        "licence": "MIT, Copyright (c) 2019 Timothy Esler; the text lies beside this file",
        "paper": "Zhang et al. 2016, arXiv:1604.02878",
        "training_data": "WIDER FACE and CelebA, by the paper's authors; their weights, ported",
        "opset": OPSET,
        "revision": git_revision("export/mtcnn.py", "export/card.py"),
        "source": {"wheel": WHEEL, "sha256": WHEEL_SHA256},
        "graphs": graphs,
    }


def _check_wheel(wheel: Path) -> None:
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise ValueError(f"{wheel} is not {WHEEL}: its sha256 is not {WHEEL_SHA256}")


def _download(folder: str) -> Path:
    """The wheel, fetched from the package index into folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*command, "facenet-pytorch==2.6.0"], check=True)
    return Path(folder) / WHEEL


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m export.mtcnn", description=__doc__)
    parser.add_argument("--wheel", type=Path, help=f"{WHEEL}; downloaded where not given")
    wheel = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as folder:
        export_mtcnn(wheel or _download(folder), FOLDER)


if __name__ == "__main__":
    main()
