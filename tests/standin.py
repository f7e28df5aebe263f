"""Stand-ins where the trained networks are not the point: a small recognition graph in an artefact.

The graph follows the contract (uint8 crops in, unit embeddings of 512 out) and tells pictures apart
by their coarse colours, so that a drawn face is most like itself.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.inference.artefact import describe_graph, golden_crops, space_id

NAME, SPACE = "stand-in", "stand-in/1"
LEAST_INTER_EYE_PX = 16  # of the classifiers' faces


def recognition_graph(
    *, coupled: bool = False, unit: bool = True, width: int = 512, seed: int = 7
) -> bytes:
    """The graph's bytes. coupled: a row's answer depends on its neighbours, as it must not. seed:
    of the weights, as if it had been trained again."""
    rng = np.random.default_rng(seed)
    constants = {
        "centre": np.float32(127.5),
        "scale": np.float32(1 / 128),
        "flat": np.array([-1, 147], np.int64),
        "weights": (rng.standard_normal((147, width)) / 12).astype(np.float32),
        "bias": np.full((width,), 1e-3, np.float32),
        "rows": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["crops"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["real", "centre"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]
        ),
        helper.make_node("Reshape", ["pooled", "flat"], ["coarse"]),
        helper.make_node("MatMul", ["coarse", "weights"], ["mixed"]),
        helper.make_node("Add", ["mixed", "bias"], ["alone"]),
    ]
    last = "alone"
    if coupled:
        nodes.append(helper.make_node("ReduceMean", [last, "rows"], ["mean"], keepdims=1))
        nodes.append(helper.make_node("Add", [last, "mean"], ["together"]))
        last = "together"
    kind, options = ("LpNormalization", {"axis": 1, "p": 2}) if unit else ("Identity", {})
    nodes.append(helper.make_node(kind, [last], ["embeddings"], **options))
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", 112, 112, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model.SerializeToString()


def scores_graph(*, height: int, width: int, classes: int, distribution: bool = True) -> bytes:
    """A graph of an expression's or attributes' form: scores from a crop's mean colours.

    distribution: they sum to one; else each is a probability of its own."""
    weights = np.random.default_rng(7).standard_normal((3, classes)).astype(np.float32)
    constants = {
        "centre": np.float32(127.5),
        "scale": np.float32(1 / 8),
        "axes": np.array([1, 2]),
        "weights": weights,
    }
    kind, options = ("Softmax", {"axis": 1}) if distribution else ("Sigmoid", {})
    nodes = [
        helper.make_node("Cast", ["crops"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["real", "centre"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["colours"], keepdims=0),
        helper.make_node("MatMul", ["colours", "weights"], ["logits"]),
        helper.make_node(kind, ["logits"], ["scores"], **options),
    ]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", height, width, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_classifier(
    folder: Path, task: str, graph: bytes, crop: Sequence[int], **changes: Any
) -> Path:
    """The folder, now an artefact of a graph of scores. crop: its height and width."""
    outputs = describe_graph(graph, (2, *crop, 3))
    width = outputs["outputs"]["scores"]["shape"][1]
    classes = [f"class {i}" for i in range(width)]
    manifest = {
        "name": NAME,
        "task": task,
        "licence": "Apache-2.0",
        "classes": classes,
        "min_inter_eye_px": LEAST_INTER_EYE_PX,
        **({"reliable": dict.fromkeys(classes, True)} if task == "attributes" else {}),
        **outputs,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph)
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}), encoding="utf-8")
    (folder / "CARD.md").write_text(f"# {NAME}\n", encoding="utf-8")
    return folder


def write_expression(folder: Path) -> Path:
    """The folder, now an artefact that tells eight expressions apart by a crop's mean colours."""
    graph = scores_graph(height=48, width=48, classes=8)
    return write_classifier(folder, "expression", graph, (48, 48), name="stand-in-expression")


def write_attributes(folder: Path) -> Path:
    """The folder, now an artefact of 40 attributes, of which the last two are not reliable."""
    graph = scores_graph(height=136, width=112, classes=40, distribution=False)
    reliable = {f"class {i}": i < 38 for i in range(40)}
    changes = {"name": "stand-in-attributes", "reliable": reliable}
    return write_classifier(folder, "attributes", graph, (136, 112), **changes)


def write_recognition(folder: Path, graph: bytes | None = None, **changes: Any) -> Path:
    """The folder, now an artefact; `changes` replace entries of the manifest (None: none)."""
    graph = recognition_graph() if graph is None else graph
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph)
    manifest = {
        "name": NAME,
        "task": "recognition",
        "space": SPACE,
        "licence": "Apache-2.0",
        "space_of": hashlib.sha256(graph).hexdigest(),
        "opset": 18,
        "calibration": calibration(),
        **describe_graph(graph, golden_crops().shape),
        **changes,
    }
    kept = {key: value for key, value in manifest.items() if value is not None}
    (folder / "manifest.json").write_text(json.dumps(kept), encoding="utf-8")
    (folder / "CARD.md").write_text(f"# {NAME}\n", encoding="utf-8")
    return folder


def write_round(folder: Path, models: Path, *, seed: int) -> Path:
    """The folder, now one of models: those of another, and of recognition another training."""
    folder.mkdir()
    for name in ("mtcnn", "patt-lite", "mzts"):
        (folder / name).symlink_to(models / name)
    graph = recognition_graph(seed=seed)
    space = space_id(NAME, hashlib.sha256(graph).hexdigest())
    write_recognition(folder / NAME, graph, space=space, space_of=None)
    return folder


def calibration(**changes: Any) -> dict[str, Any]:
    """A calibration block: rates that fall, and rise, tenfold with every 0.2 of similarity."""
    similarity = np.linspace(-1, 1, 21)
    fmr = np.minimum(1, 10 ** (-similarity * 5))
    fnmr = np.minimum(1, 10 ** ((similarity - 1) * 5))
    curve = {
        "similarity": similarity,
        "fmr": fmr,
        "fmr_low": fmr / 2,
        "fmr_high": np.minimum(1, fmr * 2),
        "fnmr": fnmr,
        "fnmr_low": fnmr / 2,
        "fnmr_high": np.minimum(1, fnmr * 2),
    }
    block = {"people": 100, "crops": 1000, "smallest_fmr": 1e-4}
    return {**block, "curve": {k: v.tolist() for k, v in curve.items()}, **changes}


def population(times: float, **changes: Any) -> dict[str, Any]:
    """A population of a calibration block: strangers who match so many times as often as its
    people."""
    curve = {
        name: np.minimum(1, np.array(column) * (1 if name == "similarity" else times)).tolist()
        for name, column in calibration()["curve"].items()
        if not name.startswith("fnmr")
    }
    return {"data": "drawn", "crops": 50, "smallest_fmr": 1e-4, "curve": curve, **changes}
