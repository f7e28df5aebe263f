"""Embeddings of a set by a graph, computed once and kept on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from training.data.pixels import Pixels
from training.graphs import Embed, embed_all, gives_raw, open_graph


@dataclass(frozen=True)
class Network:
    """A recognition graph that has been opened.

    name: what tables call it. sha256: of the file, as a manifest has it. kept_under: of the file
    and the weights that it keeps in other files. embed_raw: as embed, of the length that the
    network gives; None of a graph that gives unit embeddings alone."""

    name: str
    path: Path
    sha256: str
    kept_under: str
    embed: Embed
    cache: Path
    embed_raw: Embed | None = None

    def embeddings(self, pixels_NHWC: Pixels) -> NDArray[np.float32]:
        """Unit embeddings (N, D) of crops uint8 (N, 112, 112, 3) RGB, from the cache where they
        are.

        The file is named by the graph's and the crops' hash, so another set is never mistaken."""
        return self._kept("embeddings", self.embed, pixels_NHWC)

    def _kept(self, what: str, embed: Embed, pixels_NHWC: Pixels) -> NDArray[np.float32]:
        kept = self.cache / f"{what}-{self.kept_under[:12]}-{fingerprint(pixels_NHWC)}.npy"
        if kept.exists():
            return np.load(kept)
        found = embed_all(embed, pixels_NHWC)
        self.cache.mkdir(parents=True, exist_ok=True)
        whole = kept.with_suffix(".tmp")
        with whole.open("wb") as out:
            np.save(out, found)
        whole.replace(kept)
        return found

    def flipped(self, pixels_NHWC: Pixels) -> NDArray[np.float32]:
        """Unit embeddings of the sum of a crop's unit embedding and its mirror image's, as a
        service would add two views."""
        return _unit(self.embeddings(pixels_NHWC) + self.embeddings(_mirrored(pixels_NHWC)))

    def flipped_raw(self, pixels_NHWC: Pixels) -> NDArray[np.float32]:
        """Unit embeddings of the sum of a crop's embedding and its mirror image's as the network
        gives them: the flip test of InsightFace and CurricularFace. The longer one counts for more.

        Raises ValueError where embed_raw is None."""
        if self.embed_raw is None:
            raise ValueError(
                f"{self.path} gives unit embeddings alone: there are no raw ones to add"
            )
        views = pixels_NHWC, _mirrored(pixels_NHWC)
        return _unit(sum(self._kept("raw", self.embed_raw, view) for view in views))


def _mirrored(pixels_NHWC: Pixels) -> NDArray[np.uint8]:
    return np.asarray(pixels_NHWC[:])[:, :, ::-1]


def _unit(rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows_ND / np.maximum(np.linalg.norm(rows_ND, axis=1, keepdims=True), 1e-12)


def open_networks(
    paths: Sequence[Path], cache: Path, *, threads: int, raw: bool = False
) -> list[Network]:
    """The graphs, opened in their order; raises as open_graph does before anything is measured.

    raw: with embed_raw, of those that give it."""
    return [
        Network(
            name,
            path,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            _with_weights(path),
            embed,
            cache,
            open_graph(path, threads=threads, raw=True) if raw and gives_raw(path) else None,
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
