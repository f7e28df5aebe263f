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


def bars(path: Path, sureness: float = 0.05) -> Path:
    """A graph in the contract of expression, 48 x 48, that names what drawn_expressions draws."""
    node = helper.make_node
    nodes = [
        node("Cast", ["crops"], ["real"], to=FLOAT),
        node("ReduceMean", ["real", "across"], ["rows"], keepdims=0),
        node("Reshape", ["rows", "eight"], ["strips"]),
        node("ReduceMean", ["strips", "last"], ["light"], keepdims=0),
        node("Mul", ["light", "sureness"], ["logits"]),
        node("Softmax", ["logits"], ["scores"]),
    ]
    entry, answer = ("crops", UINT8, ["n", 48, 48, 3]), ("scores", FLOAT, ["n", 8])
    axes = {"across": np.array([2, 3], np.int64), "last": np.array([2], np.int64)}
    shape = np.array([-1, 8, 6], np.int64)
    return graph_of(path, nodes, entry, answer, **axes, eight=shape, sureness=np.float32(sureness))


def fields(path: Path, sureness: float = 0.05) -> Path:
    """A graph in the contract of attributes, 136 x 112, that sees what drawn_attributes draws."""
    node = helper.make_node
    nodes = [
        node("Cast", ["crops"], ["real"], to=FLOAT),
        node("ReduceMean", ["real", "colour"], ["grey"], keepdims=0),
        node("Reshape", ["grey", "grid"], ["cells"]),
        node("ReduceMean", ["cells", "within"], ["light"], keepdims=0),
        node("Slice", ["light", "start", "stop", "columns"], ["five"]),
        node("Reshape", ["five", "forty"], ["each"]),
        node("Sub", ["each", "middle"], ["above"]),
        node("Mul", ["above", "sureness"], ["logits"]),
        node("Sigmoid", ["logits"], ["scores"]),
    ]
    whole = {
        "colour": [3],
        "grid": [-1, 8, 17, 7, 16],
        "within": [2, 4],
        "start": [0],
        "stop": [5],
        "columns": [2],
        "forty": [-1, 40],
    }
    numbers = {"middle": np.float32(100), "sureness": np.float32(sureness)}
    constants = {name: np.array(value, np.int64) for name, value in whole.items()} | numbers
    entry, answer = ("crops", UINT8, ["n", 136, 112, 3]), ("scores", FLOAT, ["n", 40])
    return graph_of(path, nodes, entry, answer, **constants)
