"""GPUs as the driver tells of them: NVML's home, by NVIDIA's own nvidia-ml-py.

Where the library, the driver or a figure is missing there is no figure, and the service goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.observe.logs import log


@dataclass(frozen=True)
class Gpu:
    """A GPU now. use: share of the last moment in which it computed, in [0, 1]; None: not told."""

    index: int
    use: float | None
    memory_used_bytes: int
    memory_bytes: int


def open_gpus() -> Callable[[], Sequence[Gpu]]:
    """What reads all GPUs of the machine, whoever uses them; without NVML it reads none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ModuleNotFoundError:
        reason = "nvidia-ml-py is not installed"
    except pynvml.NVMLError as error:
        reason = str(error)
    else:
        return lambda: _read_all(pynvml)
    log.warning("no figures of the GPU", reason=reason)
    return no_gpus


def no_gpus() -> Sequence[Gpu]:
    """None."""
    return ()


def _read_all(nvml: Any) -> list[Gpu]:
    gpus: list[Gpu] = []
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError:  # the driver was taken away, or is being replaced
        return gpus
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError:
            continue  # lost, or another's
        gpus.append(Gpu(index, _use(nvml, handle), memory.used, memory.total))
    return gpus


def _use(nvml: Any, handle: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
    except nvml.NVMLError:  # a part of a GPU (MIG) does not tell
        return None
