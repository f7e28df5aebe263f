"""Networks ready to run: the one home of ONNX Runtime.

A session is made from a graph's bytes, so that what was hashed is what runs. It computes on the
device that was asked for or not at all. Memory is kept between runs only where inputs differ in
nothing but the number of rows, which the caller bounds: an arena keeps the largest run ever seen
and a plan per shape, and the shapes of photographs never end. (Kept, a crop costs a sixth less.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import SettingsError
from service.memory import out_of_memory_told

Array = NDArray[Any]
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# ONNX Runtime would look for weights in other files in the folder that the process runs in.
_NOWHERE = "/dev/null/no-external-data"
_EXTERNAL = (
    "its weights lie in another file (external data), which its sha256 does not cover; save it as "
    "one file, onnx.save(model, path, save_as_external_data=False)"
)
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}


class GraphBroken(ValueError):
    """The bytes are no graph that ONNX Runtime can run."""


class Session:
    """One network with one input, on one device; `run` may be called from many threads at once.

    inputs, outputs: {name: {"dtype": "uint8", "shape": ["n", 112, 112, 3]}}, a free dimension by
    its name. provider: what really computes, as ONNX Runtime names it.
    """

    def __init__(self, session: "ort.InferenceSession", *, threads: int) -> None:
        self._session = session
        self.inputs = _described(session.get_inputs())
        self.outputs = _described(session.get_outputs())
        self.provider: str = session.get_providers()[0]
        self.threads = threads
        self._input = next(iter(self.inputs), "")

    def run(self, batch: Array) -> list[Array]:
        """The outputs, in the graph's order. batch: of the input's dtype and shape."""
        with out_of_memory_told():
            outputs: list[Array] = self._session.run(None, {self._input: batch})
        return outputs


def open_session(graph: bytes, *, threads: int, device: str, keeps_memory: bool = False) -> Session:
    """The network of a graph's bytes on `device` (cpu, cuda) with `threads` threads a run.

    keeps_memory: hold on to a run's memory for the next. Raises GraphBroken, and SettingsError when
    the device cannot be used: there is no falling back.
    """
    require_device(device)
    if device == "cuda":
        ort.preload_dlls()  # CUDA's libraries come in packages, off the loader's path
    try:
        session = ort.InferenceSession(
            graph, _options(threads, keeps_memory), providers=_providers(device)
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        if _NOWHERE in str(error) or "external data" in str(error).lower():
            raise GraphBroken(_EXTERNAL) from error
        raise GraphBroken(str(error).splitlines()[0][:300]) from error
    if session.get_providers()[0] != _PROVIDERS[device]:
        raise SettingsError("MIEN_DEVICE", _inactive(device, session.get_providers()))
    return Session(session, threads=threads)


def require_device(device: str) -> None:
    """Nothing, when ONNX Runtime has the device's provider; raises SettingsError else."""
    if _PROVIDERS[device] not in ort.get_available_providers():
        raise SettingsError("MIEN_DEVICE", _inactive(device, ort.get_available_providers()))


def runtime_version() -> str:
    """ONNX Runtime's version."""
    return str(ort.__version__)


def _inactive(device: str, providers: Sequence[str]) -> str:
    return (
        f"{device} is asked for, but ONNX Runtime has only {', '.join(providers)}; install the gpu "
        "packages with a working driver (`make serve GPU=1`), or set it to cpu"
    )


def _options(threads: int, keeps_memory: bool) -> "ort.SessionOptions":
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = keeps_memory
    options.enable_mem_pattern = keeps_memory
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NOWHERE
    )
    # A thread that waits in a busy loop takes the core from the next photograph's decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers(device: str) -> list[Any]:
    # The CPU stays behind CUDA for the few shape operators that only it has.
    cuda = [(_PROVIDERS["cuda"], _CUDA_OPTIONS)] if device == "cuda" else []
    return [*cuda, _PROVIDERS["cpu"]]


def _described(nodes: Sequence[Any]) -> Mapping[str, dict[str, Any]]:
    return {
        node.name: {"dtype": _DTYPES.get(node.type, node.type), "shape": list(node.shape)}
        for node in nodes
    }
