"""A teacher's answers: embeddings of crops by any ONNX graph of the recognition contract, kept on disk.

Distillation learns from these answers alone; the teacher's weights are never read.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm


def teacher_embeddings(
    graph: Path, pixels_NHWC: NDArray[np.uint8], cache: Path, *, threads: int = 2, batch: int = 8
) -> NDArray[np.float32]:
    """Unit embeddings float32 (N, D), each of the sum over a crop and its mirror image.

    The mean of both views is the better answer (the usual flip augmentation of verification), so it is
    what a student should give for either view. graph: `crops` uint8 (n, 112, 112, 3) RGB in, unit
    `embeddings` out. cache: a folder; the file is named by the graph's and the crops' hash, and grows
    in steps, so that an interrupted run goes on where it stopped.
    """
    name = f"teacher-{_digest(graph.read_bytes())}-{_fingerprint(pixels_NHWC)}.npy"
    kept = cache / name
    if kept.exists():
        return np.load(kept)
    cache.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part")
    session = _session(graph, threads)
    entry = session.get_inputs()[0].name
    done = np.fromfile(part, np.float32) if part.exists() else np.empty(0, np.float32)
    width = session.run(None, {entry: pixels_NHWC[:1]})[0].shape[1]
    start = len(done) // width // batch * batch
    with part.open("r+b" if part.exists() else "wb") as out:
        out.truncate(start * width * 4)
        out.seek(0, os.SEEK_END)
        for i in tqdm(range(start, len(pixels_NHWC), batch), desc="teacher", unit="batch"):
            crops = np.ascontiguousarray(pixels_NHWC[i : i + batch])
            both = np.concatenate([crops, crops[:, :, ::-1]])
            straight, mirrored = np.split(session.run(None, {entry: both})[0], 2)
            summed = straight + mirrored
            out.write((summed / np.linalg.norm(summed, axis=1, keepdims=True)).tobytes())
    embeddings = np.fromfile(part, np.float32).reshape(len(pixels_NHWC), width)
    with kept.with_suffix(".tmp").open("wb") as out:
        np.save(out, embeddings)
    kept.with_suffix(".tmp").replace(kept)
    part.unlink()
    return embeddings


def _session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # The blocked-layout kernels of the highest level took three times as long on one AVX-512 machine.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _fingerprint(pixels_NHWC: NDArray[np.uint8]) -> str:
    """Of the shape and every 64th crop: cheap, and another set or order is noticed."""
    return _digest(repr(pixels_NHWC.shape).encode() + pixels_NHWC[::64].tobytes())
