"""Any ONNX graph that answers crops, ours or a peer's; onnxruntime's home here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

SIDE = 112
Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Feed = Callable[[NDArray[np.uint8]], NDArray[Any]]  # crops to what a graph takes


def open_graph(path: Path, *, threads: int = 2, raw: bool = False) -> Embed:
    """A function from crops uint8 (n, 112, 112, 3) RGB to embeddings float32 (n, D), unit length.

    raw: of the length that the network gives them, before the graph's last normalisation where it
    has one (gives_raw says whether there is another than one).

    Two forms of graph are known by the type and shape of their input: ours (uint8 [n, 112, 112, 3]
    RGB) and InsightFace's (float [n, 3, 112, 112] RGB), which is given (p - 127.5) / 127.5, or the
    pixels as they are where the graph subtracts and scales by itself before its first layer. A
    graph that cannot answer two crops at once is asked for one at a time. Raises FileNotFoundError,
    and ValueError for a file that is no such graph or gives scores of classes, saying what was
    found."""
    session = _session(path, threads, _before_unit_length(path) if raw else None)
    feed = _recognition_feed(session, path)
    blank = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    first = _ask(session, path, feed(blank[:1]))
    if len(first) != 1:
        raise ValueError(f"{path}: one crop was given, and not one row came back")
    _require_embedding(first[0], path)
    together = _answers_two(session, path, feed(blank))

    def embed(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = max(len(crops), 1) if together else 1
        parts = [feed(crops[i : i + size]) for i in range(0, len(crops), size)]
        found = np.concatenate([_ask(session, path, part) for part in parts])
        if raw:
            return found
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    return embed


def embed_all(embed: Embed, pixels_NHWC: NDArray[np.uint8], batch: int = 16) -> NDArray[np.float32]:
    """Embeddings (N, D) of all crops, with a progress bar."""
    starts = tqdm(range(0, len(pixels_NHWC), batch), desc="embedding", unit="batch", leave=False)
    return np.concatenate([embed(pixels_NHWC[i : i + batch]) for i in starts])


def gives_raw(path: Path) -> bool:
    """True if open_graph(raw=True) gives other than unit embeddings: not of a graph whose length
    comes from operators that are not known here."""
    embed, noise = open_graph(path, raw=True), np.random.default_rng(0)
    crops = noise.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    return bool(np.abs(np.linalg.norm(embed(crops), axis=1) - 1).max() > 1e-3)


TASKS = {8: "expression", 40: "attributes"}  # by how many scores a graph gives
NARROWEST = 8  # numbers of an embedding; who gives fewer names classes


def task_of(path: Path) -> str:
    """What a graph does, by its form: "expression", "attributes" or "recognition".

    Raises FileNotFoundError, and ValueError for a file that is no graph and for one that gives
    scores of other classes."""
    session = _session(path, threads=1)
    kind, shape = _input(session, path)
    answer = session.get_outputs()[0]
    if not (answer.name == "scores" or _is_grey(kind, shape)):
        return "recognition"
    width = answer.shape[-1]
    if width not in TASKS:
        raise ValueError(_names_classes(path, width))
    return TASKS[width]


def _names_classes(path: Path, width: Any) -> str:
    known = " and ".join(f"{task} ({count} scores)" for count, task in TASKS.items())
    return (
        f"{path} gives {width} scores of classes and no embedding: it cannot be measured as "
        f"recognition; graphs that name what they see are measured for {known}"
    )


def _require_embedding(row_D: NDArray[np.float32], path: Path) -> None:
    """Raises ValueError for an answer that names classes: few numbers, or shares of one."""
    shares = (row_D >= 0).all() and abs(float(row_D.sum()) - 1) < 1e-4
    if len(row_D) < NARROWEST or shares:
        raise ValueError(_names_classes(path, len(row_D)))


@dataclass(frozen=True)
class Classifier:
    """An expression or attribute graph. scores: crops uint8 (n, height, width, 3) RGB to float32
    (n, classes), each in [0, 1]."""

    scores: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    height: int
    width: int
    classes: int


def open_classifier(path: Path, *, threads: int = 2) -> Classifier:
    """The graph as a Classifier.

    Two forms are known: ours, uint8 [n, height, width, 3] in and scores float [n, classes] out, and
    that of FERPlus's authors (emotion-ferplus of the ONNX Model Zoo), grey float [1, 1, 64, 64] of
    pixels in [0, 255] to logits of the same eight classes in the same order. Raises as open_graph
    does."""
    session = _session(path, threads)
    kind, shape = _input(session, path)
    if _is_grey(kind, shape):
        height, width = shape[2:]
        scores = partial(_scores_of_grey, session, path)
    elif kind == "tensor(uint8)" and len(shape) == 4 and shape[3] == 3 and _all_fixed(shape[1:]):
        height, width = shape[1:3]
        scores = lambda crops: _ask(session, path, np.ascontiguousarray(crops))  # noqa: E731
    else:
        raise ValueError(
            f"{path} takes {kind} {shape}; a graph that names what it sees takes uint8 "
            "[n, height, width, 3]"
        )
    blank = np.zeros((1, height, width, 3), np.uint8)
    return Classifier(scores, height, width, scores(blank).shape[1])


def _scores_of_grey(
    session: onnxruntime.InferenceSession, path: Path, crops: NDArray[np.uint8]
) -> NDArray[np.float32]:
    grey = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops]
    planes = np.stack(grey).astype(np.float32)[:, None, None]
    logits = np.concatenate([_ask(session, path, plane) for plane in planes])
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _is_grey(kind: str, shape: list[Any]) -> bool:
    return kind == "tensor(float)" and len(shape) == 4 and shape[1] == 1 and _all_fixed(shape[2:])


def _before_unit_length(path: Path) -> bytes | None:
    """The graph with the embedding as its answer that its last step divides by its length; None
    where the graph does no such thing, or keeps its weights in other files."""
    model = onnx.load(path, load_external_data=False)
    made_by = {name: node for node in model.graph.node for name in node.output}
    last = made_by.get(model.graph.output[0].name)
    if last is None or any(tensor.external_data for tensor in model.graph.initializer):
        return None
    if last.op_type == "Div":
        divisor, steps = made_by.get(last.input[1]), 0
        while divisor is not None and last.input[0] not in divisor.input and steps < 6:
            divisor, steps = made_by.get(divisor.input[0]), steps + 1
        if divisor is None or last.input[0] not in divisor.input:
            return None
    elif last.op_type != "LpNormalization":
        return None
    raw = onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, None)
    del model.graph.output[:]
    model.graph.output.append(raw)
    return bytes(model.SerializeToString())


def _session(path: Path, threads: int, graph: bytes | None = None) -> onnxruntime.InferenceSession:
    """graph: taken in the place of the file's content."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Weights that are denormal numbers, as some published graphs have thousands of, cost the
    # highest level's kernels several times the work.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        source = graph or str(path)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ValueError(f"{path} is no graph that ONNX Runtime can run: {_line(error)}") from error


def _recognition_feed(session: onnxruntime.InferenceSession, path: Path) -> Feed:
    kind, shape = _input(session, path)
    if kind == "tensor(uint8)" and _fits(shape, (SIDE, SIDE, 3)):
        return np.ascontiguousarray
    if kind == "tensor(float)" and _fits(shape, (3, SIDE, SIDE)):
        mean, scale = (0, 1) if _normalises(path) else (127.5, 127.5)

        def planes(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            pixels = (crops.astype(np.float32) - np.float32(mean)) / np.float32(scale)
            return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))

        return planes
    raise ValueError(
        f"{path} takes {kind} {shape}; a recognition graph takes uint8 [n, {SIDE}, {SIDE}, 3], or, "
        f"in InsightFace's form, float [n, 3, {SIDE}, {SIDE}]"
    )


def _normalises(path: Path) -> bool:
    """Whether the graph subtracts and scales before its first layer, as those from MXNet do.

    InsightFace's loader asks for nodes named so among the first eight; what counts here are the
    operators before the first convolution or product, whatever they are named."""
    operators = set()
    for node in onnx.load(path, load_external_data=False).graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            break
        operators.add(node.op_type)
    return "Sub" in operators and bool(operators & {"Mul", "Div"})


def _input(session: onnxruntime.InferenceSession, path: Path) -> tuple[str, list[Any]]:
    entries = session.get_inputs()
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise ValueError(f"{path} has {len(entries)} inputs ({names}), where one is expected")
    return entries[0].type, list(entries[0].shape)


def _fits(shape: list[Any], wanted: tuple[int, ...]) -> bool:
    """Whether an input takes rows of that shape; a dimension without a number takes any."""
    return len(shape) == 4 and all(
        found == size or not isinstance(found, int)
        for found, size in zip(shape[1:], wanted, strict=True)
    )


def _all_fixed(dimensions: list[Any]) -> bool:
    return all(isinstance(size, int) for size in dimensions)


def _answers_two(session: onnxruntime.InferenceSession, path: Path, two: NDArray[Any]) -> bool:
    """Whether two crops get two rows: many published graphs were exported for a batch of one."""
    try:
        return len(_ask(session, path, two)) == 2
    except ValueError:
        return False


def _ask(
    session: onnxruntime.InferenceSession, path: Path, batch: NDArray[Any]
) -> NDArray[np.float32]:
    """The first output, float32 (n, D). Raises ValueError where it is of another form."""
    try:
        found = session.run(None, {session.get_inputs()[0].name: batch})[0]
    except Exception as error:  # as above
        raise ValueError(f"{path} cannot answer {batch.shape} crops: {_line(error)}") from error
    if found.ndim != 2 or found.dtype != np.float32:
        raise ValueError(f"{path} answers {found.dtype} {list(found.shape)}, not float32 [n, D]")
    if not np.isfinite(found).all():
        raise ValueError(f"{path} answers numbers that are not finite")
    return np.asarray(found)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
