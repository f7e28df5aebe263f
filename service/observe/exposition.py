"""What /metrics answers: what was counted, and how things stand at this moment.

With several worker processes whichever is asked answers for all of them: each keeps its counts in
a file of the shared folder, which prometheus_client adds up; what stands in the store is the same
for all; the processes' own figures are summed here, over those that live.
"""

import heapq
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from os import getpid, getppid
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from service.observe.gpu import Gpu
from service.observe.metrics import REGISTRY
from service.observe.workers import Workers, read_workers

LARGEST_GALLERIES: Final = 20
OTHER_GALLERIES: Final = "other"
_PROC: Final = Path("/proc")
_PARENT, _THREADS = 1, 17  # places in its stat, after the process's name


@dataclass(frozen=True)
class ModelFacts:
    """A network that is served. space: of its embeddings, "" where it makes none."""

    name: str
    space: str
    provider: str
    threads: int


@dataclass(frozen=True)
class House:
    """How things stand. ready: what /readyz says. galleries: faces by name, see `largest`;
    revision: of all galleries together; both None while the store cannot be asked.

    What the model's calibration promises, so that drift can be told from it; empty until then.
    quantiles: similarities below which a share of its mated and its non-mated comparisons lies, by
    "mated" and "non_mated" and the share. thresholds: similarities by the FMR that they stand for.
    """

    models: Sequence[ModelFacts]
    ready: bool = False
    galleries: Mapping[str, int] | None = None
    revision: int | None = None
    quantiles: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    thresholds: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Exposition:
    """build: what the program is made of. folder: where the worker processes keep their counts,
    None where there is one process. gpus: what reads them. data: a folder of whose disk is told."""

    build: Mapping[str, str]
    folder: Path | None
    gpus: Callable[[], Sequence[Gpu]]
    data: Path | None = None

    def workers(self) -> Workers:
        """The worker processes."""
        return read_workers(self.folder)

    def text(self, accept: str, house: House) -> tuple[bytes, str]:
        """All figures, in the format that an Accept header asks for, and its content type."""
        registry = CollectorRegistry()
        alive = {getpid()} if self.folder is None else _living(self.folder)
        if self.folder is None:
            registry.register(REGISTRY)
            registry.register(ProcessCollector(registry=None))
        else:
            registry.register(_Made(partial(_counted, self.folder)))
            registry.register(_Made(partial(_processes, alive)))
        registry.register(_Made(partial(_threads, alive)))
        registry.register(_Made(partial(_standing, house, self.build, self.gpus)))
        registry.register(_Made(partial(_disk, self.data)))
        registry.register(_Made(partial(_workers, self.workers())))
        encode, kind = choose_encoder(accept)
        return encode(registry), kind


def largest(faces: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Faces by gallery: the largest LARGEST_GALLERIES, and OTHER_GALLERIES for all the rest.

    faces: each gallery's name and how many it has. One that is itself called so is of the rest.
    """
    galleries = list(faces)
    named = [entry for entry in galleries if entry[0] != OTHER_GALLERIES]
    shown = dict(heapq.nlargest(LARGEST_GALLERIES, named, key=lambda entry: entry[1]))
    rest = [count for name, count in galleries if name not in shown]
    return {**shown, **({OTHER_GALLERIES: sum(rest)} if rest else {})}


class _Made:
    """Figures that are made when they are asked for."""

    def __init__(self, make: Callable[[], Iterable[Metric]]) -> None:
        self._make = make

    def collect(self) -> Iterable[Metric]:
        return self._make()


def _standing(
    house: House, build: Mapping[str, str], gpus: Callable[[], Sequence[Gpu]]
) -> Iterator[Metric]:
    yield _gauge("mien_build_info", "What the program is made of.", build, [(build, 1)])
    yield _gauge("mien_ready", "1 when calls can be answered.", [], [({}, house.ready)])
    facts = [
        (
            {
                "model": one.name,
                "space": one.space,
                "provider": one.provider,
                "threads": str(one.threads),
            },
            1,
        )
        for one in house.models
    ]
    labels = ("model", "space", "provider", "threads")
    yield _gauge("mien_model_info", "A network, and what it runs on.", labels, facts)
    if house.galleries is not None and house.revision is not None:
        sizes = [({"gallery": name}, faces) for name, faces in house.galleries.items()]
        yield _gauge("mien_gallery_faces", "Faces that are enrolled.", ["gallery"], sizes)
        help_text = "Sum of the galleries' revisions: one more with every change of any."
        yield _gauge("mien_gallery_revision", help_text, [], [({}, house.revision)])
    yield from _promised(house)
    yield from _of_gpus(gpus())


def _promised(house: House) -> Iterator[Metric]:
    quantiles = [
        ({"pairs": pairs, "fraction": f"{share:g}"}, similarity)
        for pairs, by_share in house.quantiles.items()
        for share, similarity in by_share.items()
    ]
    help_text = "Similarity below which a fraction of the calibration's comparisons lies."
    yield _gauge("mien_calibration_similarity", help_text, ["pairs", "fraction"], quantiles)
    thresholds = [({"fmr": f"{fmr:g}"}, at) for fmr, at in house.thresholds.items()]
    help_text = "Similarity that the calibration asks for a false match rate."
    yield _gauge("mien_calibration_threshold", help_text, ["fmr"], thresholds)


def _workers(workers: Workers) -> Iterator[Metric]:
    wanted, ready = workers.wanted, workers.ready
    yield _gauge("mien_workers", "Worker processes that are wanted.", [], [({}, wanted)])
    yield _gauge("mien_workers_ready", "Worker processes that are ready.", [], [({}, ready)])


def _disk(folder: Path | None) -> Iterator[Metric]:
    with suppress(OSError):  # it is gone: /readyz's to tell
        if folder is not None:
            disk = shutil.disk_usage(folder)
            free = "What is free on the disk of MIEN_DATA."
            yield _gauge("mien_disk_free_bytes", free, [], [({}, disk.free)])
            yield _gauge("mien_disk_bytes", "The disk of MIEN_DATA.", [], [({}, disk.total)])


def _threads(pids: Iterable[int]) -> Iterator[Metric]:
    counts = [_stat(pid, _THREADS) for pid in pids]
    told = [count for count in counts if count is not None]
    if told:
        yield _gauge("mien_threads", "Threads of the processes.", [], [({}, sum(told))])


def _of_gpus(gpus: Sequence[Gpu]) -> Iterator[Metric]:
    if gpus:
        use = [(_label(gpu), gpu.use) for gpu in gpus if gpu.use is not None]
        used = [(_label(gpu), gpu.memory_used_bytes) for gpu in gpus]
        there = [(_label(gpu), gpu.memory_bytes) for gpu in gpus]
        yield _gauge("mien_gpu_use_ratio", "Share of time in which it computed.", ["gpu"], use)
        yield _gauge("mien_gpu_memory_used_bytes", "Its memory in use.", ["gpu"], used)
        yield _gauge("mien_gpu_memory_bytes", "Its memory.", ["gpu"], there)


def _label(gpu: Gpu) -> dict[str, str]:
    return {"gpu": str(gpu.index)}


def _gauge(
    name: str,
    text: str,
    labels: Iterable[str],
    values: Iterable[tuple[Mapping[str, str], float]],
) -> Metric:
    names = list(labels)
    family = GaugeMetricFamily(name, text, labels=names)
    for named, value in values:
        family.add_metric([named[label] for label in names], value)
    return family


def _living(folder: Path) -> set[int]:
    """The worker processes; what dead ones said of the moment is taken out of the folder.

    Worker processes are children of one parent: an id that was given to another process since is
    told by that. Where there is no /proc nobody is taken for dead.
    """
    known = {int(file.stem.rpartition("_")[2]) for file in folder.glob("*.db")} | {getpid()}
    alive = {pid for pid in known if not _PROC.exists() or _stat(pid, _PARENT) == getppid()}
    for pid in known - alive:
        with suppress(FileNotFoundError):  # another did it at the same time
            multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    return alive


def _stat(pid: int, place: int) -> int | None:
    """A number of /proc/PID/stat; None where there is no such process, or no /proc."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[place])


def _counted(folder: Path) -> Iterable[Metric]:
    """What the worker processes counted, added up.

    A file is empty while its process is making it, and for ever where that was killed then;
    prometheus_client cannot read such a one.
    """
    files = [str(file) for file in folder.glob("*.db") if _has_content(file)]
    return multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-any-return, no-untyped-call]


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # of a process that is dead, and taken out meanwhile
        return False


def _processes(pids: Iterable[int]) -> Iterator[Metric]:
    """prometheus_client's figures of a process, of all of them: sums, and the oldest's start."""
    of_all: dict[str, list[Metric]] = {}
    for pid in sorted(pids):
        for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            of_all.setdefault(family.name, []).append(family)
    for name, families in of_all.items():
        values = [family.samples[0].value for family in families]
        value = min(values) if name.endswith("start_time_seconds") else sum(values)
        kind = CounterMetricFamily if families[0].type == "counter" else GaugeMetricFamily
        yield kind(name, families[0].documentation, value=value)
