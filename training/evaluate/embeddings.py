"""Embeddings of a set by a graph, computed once and kept on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from training.data.pixels import Pixels
from training.graphs import Embed, embed_all, open_graph


@dataclass(frozen=True)
class Network:
    """A recognition graph that has been opened.

    name: what tables call it. sha256: of the file, as a manifest has it. kept_under: of the file
    and the weights that it keeps in other files."""

    name: str
    path: Path
    sha256: str
    kept_under: str
    embed: Embed
    cache: Path

    def embeddings(self, pixels_NHWC: Pixels) -> NDArray[np.float32]:
        """Unit embeddings (N, D) of crops uint8 (N, 112, 112, 3) RGB, from the cache where they
        are.

        The file is named by the graph's and the crops' hash, so another set is never mistaken."""
        kept = self.cache / f"embeddings-{self.kept_under[:12]}-{fingerprint(pixels_NHWC)}.npy"
        if kept.exists():
            return np.load(kept)
        found = embed_all(self.embed, pixels_NHWC)
        self.cache.mkdir(parents=True, exist_ok=True)
        whole = kept.with_suffix(".tmp")
        with whole.open("wb") as out:
            np.save(out, found)
        whole.replace(kept)
        return found

    def flipped(self, pixels_NHWC: Pixels) -> NDArray[np.float32]:
        """Unit embeddings of the sum over a crop and its mirror image: the flip test of InsightFace
        and CurricularFace."""
        mirrored = np.asarray(pixels_NHWC[:])[:, :, ::-1]
        summed = self.embeddings(pixels_NHWC) + self.embeddings(mirrored)
        return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)


def open_networks(paths: Sequence[Path], cache: Path, *, threads: int) -> list[Network]:
    """The graphs, opened in their order; raises as open_graph does before anything is measured."""
    return [
        Network(
            name,
            path,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            _with_weights(path),
            embed,
            cache,
        )
        for name, path in zip(names_of(paths), paths, strict=True)
        for embed in (open_graph(path, threads=threads),)
    ]


def names_of(paths: Sequence[Path]) -> list[str]:
    """A short name a graph: the file's, its folder's where that is model.onnx, the whole path where
    two would be called the same."""
    short = [path.resolve().parent.name if path.stem == "model" else path.stem for path in paths]
    return [
        name if short.count(name) == 1 else str(path)
        for name, path in zip(short, paths, strict=True)
    ]


def fingerprint(pixels_NHWC: Pixels, block: int = 256) -> str:
    """Of every pixel, read in blocks: crops may lie on disk or be decoded at each access."""
    digest = hashlib.sha256(repr(tuple(pixels_NHWC.shape)).encode())
    for i in range(0, len(pixels_NHWC), block):
        digest.update(np.ascontiguousarray(pixels_NHWC[i : i + block]))
    return digest.hexdigest()[:12]


def _with_weights(path: Path) -> str:
    """The hash of the graph and of the files beside it that hold its weights."""
    digest = hashlib.sha256(path.read_bytes())
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    places = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    for place in sorted(places):
        digest.update((path.parent / place).read_bytes())
    return digest.hexdigest()
