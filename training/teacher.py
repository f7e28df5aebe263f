"""A teacher's answers: embeddings of crops by any ONNX graph of the recognition contract, kept on
disk.

Distillation learns from these answers alone; the teacher's weights are never read.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.graphs import open_graph


def teacher_embeddings(
    graph: Path, pixels_NHWC: NDArray[np.uint8], cache: Path, *, threads: int = 2, batch: int = 8
) -> NDArray[np.float32]:
    """Unit embeddings float32 (N, D), each of the sum over a crop and its mirror image.

    The mean of both views is the better answer (the usual flip augmentation of verification), so it
    is what a student should give for either view. cache: a folder; the file is named by the graph's
    and the crops' hash, and grows in steps, so that an interrupted run goes on where it stopped.
    """
    kept = cache / f"teacher-{_digest(graph.read_bytes())}-{_fingerprint(pixels_NHWC)}.npy"
    if kept.exists():
        return np.load(kept)
    cache.mkdir(parents=True, exist_ok=True)
    embed, part = open_graph(graph, threads=threads), kept.with_suffix(".part")
    width = embed(pixels_NHWC[:1]).shape[1]
    row_bytes = 4 * width
    done = part.stat().st_size // row_bytes // batch * batch if part.exists() else 0
    with part.open("r+b" if part.exists() else "wb") as out:
        out.truncate(done * row_bytes)
        out.seek(0, os.SEEK_END)
        for i in tqdm(range(done, len(pixels_NHWC), batch), desc="teacher", unit="batch"):
            crops = pixels_NHWC[i : i + batch]
            straight, mirrored = np.split(embed(np.concatenate([crops, crops[:, :, ::-1]])), 2)
            summed = straight + mirrored
            out.write((summed / np.linalg.norm(summed, axis=1, keepdims=True)).tobytes())
    embeddings = np.fromfile(part, np.float32).reshape(len(pixels_NHWC), width)
    whole = kept.with_suffix(".tmp")
    with whole.open("wb") as out:
        np.save(out, embeddings)
    whole.replace(kept)
    part.unlink()
    return embeddings


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _fingerprint(pixels_NHWC: NDArray[np.uint8]) -> str:
    """Of the shape and every 64th crop: cheap, and another set or order is noticed."""
    return _digest(repr(pixels_NHWC.shape).encode() + pixels_NHWC[::64].tobytes())
