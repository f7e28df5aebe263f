"""Teachers' answers: embeddings of crops by any ONNX graphs of the recognition contract, asked
while a run goes on or ahead and kept on disk.

Distillation learns from these answers alone; the teachers' weights are never read. D: width of an
answer, the sum over the teachers; W: the student's width.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from training.graphs import open_graph

AT_ONCE = 8  # crops that a teacher is asked about; larger batches do not stay in the CPU's cache
Ask = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def open_teachers(graphs: Sequence[Path], *, threads: int = 1) -> Ask:
    """A function from crops uint8 (n, 112, 112, 3) to the graphs' unit embeddings side by side,
    float32 (n, D), of unit length again.

    Raises FileNotFoundError and ValueError as open_graph does."""
    opened = [open_graph(graph, threads=threads) for graph in graphs]

    def ask(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [crops[i : i + AT_ONCE] for i in range(0, len(crops), AT_ONCE)]
        rows = [np.concatenate([embed(part) for embed in opened], axis=1) for part in parts]
        return np.concatenate(rows) / np.float32(len(opened) ** 0.5)

    return ask


class Target(nn.Module):
    """Answers (n, D) to what a student of width W is to say, (n, W), of unit length.

    matrix_DW: a buffer without a gradient, so that it is kept in a run's checkpoints; the first W
    numbers as they are until `fit`."""

    matrix_DW: Tensor

    def __init__(self, answer_width: int, width: int) -> None:
        super().__init__()
        self.register_buffer("matrix_DW", torch.eye(answer_width, width))

    def forward(self, answers_ND: Tensor) -> Tensor:
        return F.normalize(answers_ND @ self.matrix_DW)

    def fit(self, answers_ND: Tensor, student_NW: Tensor | None) -> None:
        """Takes the principal directions of the answers (about zero: cosines are kept); answers as
        wide as the student are taken as they are.

        student_NW: what a warmed student says of the same crops. The directions are then turned by
        the orthogonal matrix that brings the targets nearest to it (Schoenemann 1966), so that
        nothing that it knows has to be learnt again under another name."""
        answer_width, width = self.matrix_DW.shape
        matrix_DW = torch.eye(width)
        if answer_width != width:  # of all directions, in case the answers are few
            moment_DD = answers_ND.T.double() @ answers_ND.double()
            matrix_DW = torch.linalg.eigh(moment_DD).eigenvectors.flip(1)[:, :width].float()
        if student_NW is not None:
            left, _, right = torch.linalg.svd((answers_ND @ matrix_DW).T @ student_NW)
            matrix_DW = matrix_DW @ left @ right
        self.matrix_DW.copy_(matrix_DW)


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
