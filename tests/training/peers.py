"""Small graphs in the forms that published networks have."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
WEIGHTS = np.random.default_rng(3).standard_normal((147, 8)).astype(np.float32)
BIAS = np.full(8, 3, np.float32)  # so that the scale of what a graph is given shows


def graph_of(path: Path, nodes: list, entry: tuple, answer: tuple, **constants: object) -> Path:
    """A graph from `entry` to `answer`, each (name, type, shape), in a file."""
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info(*entry)],
        [helper.make_tensor_value_info(*answer)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    path.write_bytes(model.SerializeToString())
    return path


def peer(path: Path, *, normalises: bool = False, batch: int | str = "n", rows: int = -1) -> Path:
    """A network in InsightFace's form: coarse colours, mixed. rows: what its reshape asks for."""
    node = helper.make_node
    first = "input"
    nodes = []
    if normalises:
        nodes = [node("Sub", ["input", "mean"], ["a"]), node("Mul", ["a", "scale"], ["b"])]
        first = "b"
    nodes += [
        node("AveragePool", [first], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        node("Reshape", ["pooled", "flat"], ["coarse"]),
        node("Gemm", ["coarse", "weights", "bias"], ["found"]),
    ]
    constants = {"flat": np.array([rows, 147], np.int64), "weights": WEIGHTS, "bias": BIAS}
    if normalises:
        constants |= {"mean": np.float32(127.5), "scale": np.float32(1 / 128)}
    entry, answer = ("input", FLOAT, [batch, 3, 112, 112]), ("found", FLOAT, [batch, 8])
    return graph_of(path, nodes, entry, answer, **constants)


def classifier(path: Path, side: int = 16, classes: int = 3) -> Path:
    """A graph that scores classes by mean colour, in the contract of expression."""
    node = helper.make_node
    nodes = [
        node("Cast", ["crops"], ["real"], to=FLOAT),
        node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        node("Softmax", ["mean"], ["scores"]),
    ]
    entry = ("crops", UINT8, ["n", side, side, 3])
    answer = ("scores", FLOAT, ["n", classes])
    return graph_of(path, nodes, entry, answer, axes=np.array([1, 2], np.int64))
