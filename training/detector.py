"""The service's detector for training: the graphs that ship, run as the service runs them.

training may know service.vision alone, whose cascade takes its three networks as functions; here
they come from ONNX Runtime. A test holds the crops to the service's own, to the bit.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from service.vision.detect import Cascade, Network

SHIPPED = Path(__file__).resolve().parents[1] / "service" / "models" / "mtcnn"


def open_detector(folder: Path = SHIPPED) -> Cascade:
    """MTCNN on the CPU, one thread a photograph; may be used from many threads at once.

    Raises ValueError for a graph that is not what its manifest says.
    """
    described = json.loads((folder / "manifest.json").read_text())["graphs"]
    return Cascade(
        **{name: _network(folder / d["file"], d["sha256"]) for name, d in described.items()}
    )


def _network(path: Path, sha256: str) -> Network:
    graph = path.read_bytes()
    found = hashlib.sha256(graph).hexdigest()
    if found != sha256:
        raise ValueError(f"{path} has the sha256 {found}; its manifest says {sha256}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The shapes of photographs never end: what is kept for the next run only grows.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def run(pixels: NDArray[Any]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = session.run(None, {entry: pixels})
        return outputs

    return run
