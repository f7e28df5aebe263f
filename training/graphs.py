"""Any ONNX graph of the recognition contract, ours or a peer's, asked for embeddings; onnxruntime's
home here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def open_graph(path: Path, *, threads: int = 2) -> Embed:
    """A function from crops uint8 (n, 112, 112, 3) RGB to embeddings float32 (n, D), unit
    length."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Weights that are denormal numbers, as some published graphs have thousands of, cost the
    # highest level's kernels several times the work.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def embed(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {entry: np.ascontiguousarray(crops)})[0]
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return embed


def embed_all(embed: Embed, pixels_NHWC: NDArray[np.uint8], batch: int = 16) -> NDArray[np.float32]:
    """Embeddings (N, D) of all crops, with a progress bar."""
    starts = tqdm(range(0, len(pixels_NHWC), batch), desc="embedding", unit="batch", leave=False)
    return np.concatenate([embed(pixels_NHWC[i : i + batch]) for i in starts])
