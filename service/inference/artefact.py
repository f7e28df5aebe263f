"""Artefacts: folders with a network, what it says of itself, and the proof that it is so.

A folder holds one ONNX graph (model.onnx; a detector has pnet.onnx, rnet.onnx and onet.onnx),
manifest.json and CARD.md. The manifest:

    name, task         "ecacface-mobile", one of the tasks of SIGNATURES
    space              the id of the embedding space, see `space_id`; recognition alone
    space_of           the sha256 of the graph that an id of another form belongs to
    licence, data, teacher, metrics, calibration, opset, revision     for people and /models
    classes            the names of the scores, in their order; expression and attributes alone, as
    min_inter_eye_px   eyes less far apart in the photograph than that many pixels get no scores
    reliable           {class: true or false}, whether the score is to be trusted; attributes alone
    sha256             of the graph's file, in hex
    input, outputs     {name: {"dtype": "uint8", "shape": ["n", 112, 112, 3]}}
    golden             {"input": {name: TENSOR}, "outputs": {name: TENSOR}}

A TENSOR is {"dtype", "shape", "base64": its bytes, little-endian}; a golden input without base64 is
`golden_pattern` of its shape, so that only the answer needs to be kept. A task of several graphs
holds the last four under "graphs": {"pnet": {...}, ...}. `describe_graph` writes these entries when
an artefact is made, `load_artefact` holds the graph to them when it is served.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtefactError
from service.inference.session import GraphBroken, Session, open_session

Array = NDArray[Any]
Tensor = Mapping[str, Any]
EMBEDDING_COSINE: Final = 0.9999
SCORE_DIFFERENCE: Final = 1e-3
SUM_OF_SCORES: Final = 1e-3
UNIT_LENGTH: Final = 1e-3
SPACE_DIGITS: Final = 16  # of the graph's sha256: 64 bits, so that no two networks share an id
_MANIFEST: Final = "manifest.json"


Shape = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Signature:
    """What a task's graph takes and gives: tensors by name, a free dimension as None, one that each
    graph fixes for itself as a letter (the same size wherever the letter stands)."""

    input: dict[str, tuple[str, Shape]]
    outputs: dict[str, tuple[str, Shape]]


def _network(side: int | None, **outputs: Shape) -> Signature:
    return Signature(
        input={"pixels": ("float32", (None, 3, side, side))},
        outputs={name: ("float32", shape) for name, shape in outputs.items()},
    )


SIGNATURES: Final[dict[str, dict[str, Signature]]] = {
    "recognition": {
        "model": Signature(
            input={"crops": ("uint8", (None, 112, 112, 3))},
            outputs={"embeddings": ("float32", (None, 512))},
        )
    },
    "expression": {
        "model": Signature(
            input={"crops": ("uint8", (None, "S", "S", 3))},
            outputs={"scores": ("float32", (None, 8))},
        )
    },
    "attributes": {
        "model": Signature(
            input={"crops": ("uint8", (None, 136, 112, 3))},
            outputs={"scores": ("float32", (None, 40))},
        )
    },
    "detection": {
        "pnet": _network(None, scores=(None, None, None), offsets=(None, 4, None, None)),
        "rnet": _network(24, scores=(None,), offsets=(None, 4)),
        "onet": _network(48, scores=(None,), offsets=(None, 4), landmarks=(None, 10)),
    },
}


CLASSIFIERS: Final = ("expression", "attributes")  # tasks whose scores bear names


@dataclass(frozen=True)
class Artefact:
    """A network that was held to its manifest. graphs: its sessions by the graph's name; files: the
    SHA-256 of each file that was loaded, in hex."""

    name: str
    task: str
    folder: Path
    manifest: Mapping[str, Any]
    graphs: Mapping[str, Session]
    files: Mapping[Path, str]

    @property
    def space(self) -> str:
        """The embedding space's id."""
        return str(self.manifest["space"])


def load_artefact(folder: Path, *, threads: int = 1, device: str = "cpu") -> Artefact:
    """The artefact in a folder, verified: hash, graph contract, golden output, rows independent.

    Raises ArtefactError naming folder and reason, SettingsError when the device cannot be used.
    """
    try:
        manifest, digest = _manifest(folder)
        task = manifest["task"]
        entries = _entries(manifest, task)
        graphs = {
            part: _verified(folder / f"{part}.onnx", part, entry, task, threads, device)
            for part, entry in entries.items()
        }
        if task == "recognition":
            _keep_space(manifest)
    except _Refused as refused:
        raise ArtefactError(str(folder), str(refused)) from refused
    files = {folder / f"{part}.onnx": entry["sha256"] for part, entry in entries.items()}
    files[folder / _MANIFEST] = digest
    return Artefact(manifest["name"], task, folder, manifest, graphs, files)


def space_id(name: str, sha256: str) -> str:
    """The id of the embedding space of a network: its name, and which weights it has.

    sha256: of the graph's file, in hex. The graph holds weights and normalisation, so that another
    training, quantisation or pixel scale is another space, whose embeddings cannot be compared.
    """
    return f"{name}/{sha256[:SPACE_DIGITS]}"


def describe_graph(graph: bytes, golden_shape: Sequence[int]) -> dict[str, Any]:
    """The manifest's entries of a graph: sha256, input, outputs, golden.

    golden_shape: of the input that the golden output is made from.
    Raises GraphBroken when the bytes are no graph.
    """
    session = open_session(graph, threads=1, device="cpu")
    [(name, tensor)] = session.inputs.items()
    golden = {"dtype": tensor["dtype"], "shape": list(golden_shape)}
    answer = _answer(session, _unpacked(golden))
    return {
        "sha256": hashlib.sha256(graph).hexdigest(),
        "input": session.inputs,
        "outputs": session.outputs,
        "golden": {
            "input": {name: golden},
            "outputs": {name: _packed(array) for name, array in answer.items()},
        },
    }


def golden_pattern(shape: Sequence[int]) -> NDArray[np.uint8]:
    """A pattern that is the same everywhere and for ever: uint8 of a shape with four dimensions.

    Slanted ramps with edges where they wrap, other ones in every row and channel; integers only, so
    that no library's random numbers or rounding can change it.
    """
    a, b, c, d = np.indices(shape, dtype=np.int64)
    waves = b * (5 + a) + c * (3 + 2 * a) + d * (41 + a) + (b * c >> 4)
    pattern: NDArray[np.uint8] = (waves % 256).astype(np.uint8)
    return pattern


def golden_crops() -> NDArray[np.uint8]:
    """The golden input of a recognition graph: uint8 (2, 112, 112, 3)."""
    return golden_pattern((2, 112, 112, 3))


class _Refused(Exception):
    """Why the artefact is refused."""


def _manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest and its file's SHA-256."""
    try:
        text = (folder / _MANIFEST).read_bytes()
        manifest = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise _Refused(f"manifest.json cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise _Refused("manifest.json is not a JSON object")
    needed = ["name", "task", "licence"] + ["space"] * (manifest.get("task") == "recognition")
    if wrong := [key for key in needed if not isinstance(manifest.get(key), str)]:
        raise _Refused(f"manifest.json lacks {', '.join(wrong)}")
    if manifest["task"] not in SIGNATURES:
        raise _Refused(f"its task is {manifest['task']!r}, not one of {', '.join(SIGNATURES)}")
    if manifest["task"] in CLASSIFIERS:
        _keep_classes(manifest)
        _keep_bounds(manifest)
    return manifest, hashlib.sha256(text).hexdigest()


def _keep_classes(manifest: Mapping[str, Any]) -> None:
    [(_, shape)] = SIGNATURES[manifest["task"]]["model"].outputs.values()
    classes = manifest.get("classes")
    if not isinstance(classes, list) or not all(isinstance(c, str) and c for c in classes):
        raise _Refused("manifest.json lacks classes, the names of the scores")
    if len(set(classes)) != len(classes) or len(classes) != shape[1]:
        raise _Refused(
            f"manifest.json names {len(classes)} classes, {len(set(classes))} of them different; "
            f"the graph gives {shape[1]} scores"
        )


def _keep_space(manifest: Mapping[str, Any]) -> None:
    """Raises _Refused unless the space's id says that it is of the graph, whose hash was checked.

    An id that was given before ids had the hash (ecacface-mobile/5) stays good for the very graph
    that `space_of` names, so that galleries which it pinned are searched on.
    """
    space, sha256 = manifest["space"], manifest["sha256"]
    if space.rpartition("/")[2] == sha256[:SPACE_DIGITS] or manifest.get("space_of") == sha256:
        return
    raise _Refused(
        f"its space is {space!r}, which is not of the graph with the sha256 {sha256}: embeddings "
        f"of two networks cannot be compared. Name it {space_id(manifest['name'], sha256)!r}; or, "
        f'if this graph made the embeddings of galleries of {space!r}, say so by "space_of": '
        f'"{sha256}" in manifest.json'
    )


def _keep_bounds(manifest: Mapping[str, Any]) -> None:
    least = manifest.get("min_inter_eye_px")
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least < math.inf:
        raise _Refused(f"manifest.json lacks min_inter_eye_px, pixels from 0 on, not {least!r}")
    if manifest["task"] != "attributes":
        return
    reliable = manifest.get("reliable")
    if not isinstance(reliable, dict) or set(reliable) != set(manifest["classes"]):
        raise _Refused("manifest.json lacks reliable, which says it of every class and no other")
    if wrong := [name for name, said in reliable.items() if not isinstance(said, bool)]:
        raise _Refused(f"manifest.json says neither true nor false in reliable of {wrong[0]}")


def _entries(manifest: dict[str, Any], task: str) -> dict[str, Any]:
    parts = SIGNATURES[task]
    entries = {"model": manifest} if list(parts) == ["model"] else manifest.get("graphs")
    if not isinstance(entries, dict) or set(entries) != set(parts):
        raise _Refused(f"manifest.json needs the graphs {', '.join(parts)}")
    for part, entry in entries.items():
        fields = {"sha256": str, "input": dict, "outputs": dict, "golden": dict}
        wrong = [name for name, kind in fields.items() if not isinstance(entry.get(name), kind)]
        if wrong:
            raise _Refused(f"manifest.json lacks {', '.join(wrong)} of {part}.onnx")
    return {part: entries[part] for part in parts}


def _verified(
    path: Path, part: str, entry: Mapping[str, Any], task: str, threads: int, device: str
) -> Session:
    signature = SIGNATURES[task][part]
    try:
        graph = path.read_bytes()
    except OSError as error:
        raise _Refused(f"{path.name} cannot be read: {error}") from error
    if (digest := hashlib.sha256(graph).hexdigest()) != entry["sha256"]:
        raise _Refused(f"{path.name} has the sha256 {digest}, the manifest says {entry['sha256']}")
    try:
        session = open_session(
            graph, threads=threads, device=device, keeps_memory=_differs_in_rows_alone(signature)
        )
    except GraphBroken as error:
        raise _Refused(f"{path.name} is no graph that can run: {error}") from error
    _keep_contract(path.name, session, signature, entry)
    _keep_golden(path.name, session, entry["golden"], task)
    return session


def _differs_in_rows_alone(signature: Signature) -> bool:
    return all(None not in shape[1:] for _, shape in signature.input.values())


def _keep_contract(
    name: str, session: Session, signature: Signature, entry: Mapping[str, Any]
) -> None:
    for side, has, wanted in (
        ("input", session.inputs, signature.input),
        ("outputs", session.outputs, signature.outputs),
    ):
        if list(has) != list(wanted) or not all(_fits(has[key], *wanted[key]) for key in wanted):
            raise _Refused(f"{name} has the {side} {dict(has)}, the task asks for {wanted}")
        if dict(has) != entry[side]:
            raise _Refused(f"{name} has the {side} {dict(has)}, the manifest says {entry[side]}")


def _fits(tensor: Tensor, dtype: str, shape: Shape) -> bool:
    found = [size if isinstance(size, int) else None for size in tensor["shape"]]
    if tensor["dtype"] != dtype or len(found) != len(shape):
        return False
    chosen = {letter: found[i] for i, letter in enumerate(shape) if isinstance(letter, str)}
    return None not in chosen.values() and found == [
        chosen[size] if isinstance(size, str) else size for size in shape
    ]


def _keep_golden(name: str, session: Session, golden: Mapping[str, Any], task: str) -> None:
    [(tensor_name, tensor)] = session.inputs.items()
    try:
        batch = _unpacked(golden["input"][tensor_name]).astype(tensor["dtype"])
        wanted = {key: _unpacked(packed) for key, packed in golden["outputs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _Refused(f"the golden input or output of {name} is unusable: {error!r}") from error
    if not _is_batch(batch, tensor):
        raise _Refused(f"the golden input of {name} has the shape {batch.shape}, not {tensor}")
    got, alone = _answer(session, batch), _answer(session, batch[:1])
    beside = _answer(session, np.concatenate([batch[:1], np.flip(batch[:1])]))
    for key, array in got.items():
        if key not in wanted or wanted[key].shape != array.shape:
            raise _Refused(f"{name} lacks a golden output {key!r} of shape {array.shape}")
        _keep_near(f"{name}'s {key} and its golden output", array, wanted[key], task)
        _keep_near(
            f"{name}'s {key} of a row alone and beside others", alone[key], beside[key], task
        )


def _is_batch(batch: Array, tensor: Tensor) -> bool:
    return (
        len(batch.shape) == len(tensor["shape"])
        and batch.shape[0] > 0
        and all(
            size == fixed
            for size, fixed in zip(batch.shape, tensor["shape"], strict=True)
            if isinstance(fixed, int)
        )
    )


def _keep_near(what: str, got: Array, wanted: Array, task: str) -> None:
    wanted = wanted[: len(got)]
    if task in CLASSIFIERS and not ((got >= 0) & (got <= 1)).all():
        raise _Refused(f"{what}: a score is outside [0, 1]")
    if task == "expression" and not np.abs(got.sum(axis=1) - 1).max() <= SUM_OF_SCORES:
        raise _Refused(f"{what}: the scores of a face do not sum to 1")
    if task == "recognition":
        length = float(np.abs(np.linalg.norm(got, axis=1) - 1).max())
        if not length <= UNIT_LENGTH:
            raise _Refused(f"{what}: the embeddings are not of unit length, off by {length:.2g}")
        cosine = float((got * wanted).sum(axis=1).min())
        if not cosine >= EMBEDDING_COSINE:
            raise _Refused(f"{what} differ: cosine {cosine:.6f}, at least {EMBEDDING_COSINE}")
    elif not (worst := float(np.abs(got - wanted).max())) <= SCORE_DIFFERENCE:
        raise _Refused(f"{what} differ by {worst:.2g}, at most {SCORE_DIFFERENCE}")


def _answer(session: Session, batch: Array) -> dict[str, Array]:
    return dict(zip(session.outputs, session.run(batch), strict=True))


def _packed(array: Array) -> dict[str, Any]:
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    packed = base64.b64encode(raw).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "base64": packed}


def _unpacked(tensor: Tensor) -> Array:
    dtype = np.dtype(tensor["dtype"])
    if "base64" not in tensor:
        return golden_pattern(tensor["shape"]).astype(dtype)
    raw = base64.b64decode(tensor["base64"], validate=True)
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(tensor["shape"])
