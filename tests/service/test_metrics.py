"""service/observe/metrics.py, exposition.py, gpu.py: what is counted, and how it is shown."""

import gc
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from service.observe import metrics
from service.observe.exposition import (
    LARGEST_GALLERIES,
    Exposition,
    House,
    ModelFacts,
    _living,
    _processes,
    largest,
)
from service.observe.gpu import Gpu, no_gpus, open_gpus
from service.observe.record import Record, method_of
from service.observe.stages import STAGES
from service.observe.trace import trace_of
from tests.figures import Figures

BARE = Exposition({"version": "1"}, folder=None, gpus=no_gpus)


def shown(house: House | None = None, exposition: Exposition = BARE) -> Figures:
    text, _ = exposition.text("", house or House([]))
    return Figures(text.decode())


def record(route: str = "/identify") -> Record:
    return Record("id", "POST", trace_of([], [], recorded=False), route=route, status=200)


def test_a_record_is_counted_with_all_that_it_came_to() -> None:
    before = shown()
    one = record("/once")
    for stage in STAGES:
        with one.stages.measure(stage):
            pass
    one.stages.saw((0.25, 0.75))
    one.stages.saw(())
    one.stages.saw(None)
    one.stages.decided("match", 0.52)
    one.stages.decided("no_match")
    one.end()
    metrics.count(one)
    after = shown()
    assert after("mien_requests_total", route="/once", method="POST", status="200") == 1
    assert after("mien_request_seconds_count", route="/once") == 1
    assert after("mien_request_seconds_sum", route="/once") == pytest.approx(one.seconds)
    spent = one.stages.seconds()
    for name, expected, labels in [
        *(("mien_stage_seconds_count", 1, {"stage": stage}) for stage in STAGES),
        *(("mien_stage_seconds_sum", spent[stage], {"stage": stage}) for stage in STAGES),
        ("mien_faces_per_image_count", 2, {}),
        ("mien_faces_per_image_sum", 2, {}),
        ("mien_quality_score_sum", 1.0, {}),
        ("mien_quality_score_count", 2, {}),
        ("mien_decisions_total", 1, {"decision": "match"}),
        ("mien_decisions_total", 1, {"decision": "no_match"}),
        ("mien_top1_similarity_count", 1, {}),
        ("mien_top1_similarity_bucket", 1, {"decision": "match", "le": "0.55"}),
        ("mien_top1_similarity_bucket", 0, {"decision": "match", "le": "0.5"}),
        ("mien_refused_total", 0, {}),
    ]:
        assert after(name, **labels) - before(name, **labels) == pytest.approx(expected), name


def test_a_refused_request_is_counted_by_its_reason() -> None:
    before = shown()("mien_refused_total", reason="queue-full")
    refused = record()
    refused.problem = "queue-full"
    metrics.count(refused)
    assert shown()("mien_refused_total", reason="queue-full") == before + 1


def test_a_method_that_http_does_not_have_is_other() -> None:
    assert [method_of(name) for name in ("HEAD", "PATCH", "BREW", "get")] == [
        *("HEAD", "PATCH", "other", "other")
    ]


def test_a_stage_s_buckets_tell_what_was_measured_apart() -> None:
    """Half of benchmarks/results' stages and their doubles lie in different buckets."""
    bounds = (0.0, *metrics.STAGE_BUCKETS_S)
    for seconds in (0.00067, 0.0015, 0.0024, 0.0069, 0.0269, 0.26):
        assert bucket(bounds, seconds) < bucket(bounds, seconds * 4)
    for buckets in (metrics.STAGE_BUCKETS_S, metrics.REQUEST_BUCKETS_S):
        assert list(buckets) == sorted(set(buckets))
        assert len(buckets) <= 20  # each is a time series a label


def bucket(bounds: tuple[float, ...], value: float) -> int:
    return sum(bound < value for bound in bounds)


def test_only_the_largest_galleries_have_a_name_and_the_rest_are_other() -> None:
    galleries = [(f"g{i}", i) for i in range(LARGEST_GALLERIES + 5)]
    sizes = largest([*galleries, ("other", 1000)])
    assert len(sizes) == LARGEST_GALLERIES + 1
    assert sizes["g24"] == 24
    assert "g4" not in sizes
    assert sizes["other"] == 1000 + 0 + 1 + 2 + 3 + 4
    assert largest([("default", 3)]) == {"default": 3}
    assert largest([]) == {}


def test_how_things_stand_is_shown() -> None:
    models = [ModelFacts("net", "net/1", "CPUExecutionProvider", 2)]
    figures = shown(House(models, galleries={"default": 3, "other": 9}, revision=17))
    labels = {"space": "net/1", "provider": "CPUExecutionProvider", "threads": "2"}
    assert figures("mien_model_info", model="net", **labels) == 1
    assert figures("mien_build_info", version="1") == 1
    assert figures("mien_gallery_faces", gallery="other") == 9
    assert figures("mien_gallery_revision") == 17
    assert figures("process_resident_memory_bytes") > 2**20


def test_readiness_and_what_the_calibration_promises_are_shown() -> None:
    assert shown(House([]))("mien_ready") == 0
    house = House(
        [],
        ready=True,
        quantiles={"mated": {0.5: 0.54}, "non_mated": {0.99: 0.27}},
        thresholds={1e-5: 0.51},
    )
    figures = shown(house)
    assert figures("mien_ready") == 1
    assert figures("mien_calibration_similarity", pairs="mated", fraction="0.5") == 0.54
    assert figures("mien_calibration_similarity", pairs="non_mated", fraction="0.99") == 0.27
    assert figures("mien_calibration_threshold", fmr="1e-05") == 0.51


def test_the_disk_of_the_data_is_told_and_left_out_where_the_folder_is_gone(
    tmp_path: Path,
) -> None:
    disk = shutil.disk_usage(tmp_path)
    told = shown(exposition=replace(BARE, data=tmp_path))
    assert told("mien_disk_bytes") == disk.total
    assert 0 < told("mien_disk_free_bytes") <= disk.total
    gone = shown(exposition=replace(BARE, data=tmp_path / "gone"))
    assert not [name for name, *_ in gone.samples if name.startswith("mien_disk")]


def test_threads_are_those_that_run() -> None:
    before = shown()("mien_threads")
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert shown()("mien_threads") == before + 1
    finally:
        end.set()
        thread.join()


def test_runs_of_the_garbage_collector_are_counted_once() -> None:
    gc.disable()  # one of its own would be counted too
    try:
        metrics.count(record())
        before = shown()("mien_gc_collections_total", generation="2")
        gc.collect()
        metrics.count(record())
        metrics.count(record())
        assert shown()("mien_gc_collections_total", generation="2") == before + 1
    finally:
        gc.enable()


def test_a_store_that_cannot_be_asked_leaves_its_figures_out_and_no_others() -> None:
    figures = shown(House([]))
    assert not figures.values("mien_gallery_faces", "gallery")
    assert not [name for name, *_ in figures.samples if name.startswith("mien_gallery")]
    assert figures("mien_build_info") == 1


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    text, kind = BARE.text("application/openmetrics-text; version=1.0.0", House([]))
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert BARE.text("text/plain", House([]))[1].startswith("text/plain")


def test_gpus_are_shown_each_with_what_it_tells() -> None:
    gpus = [Gpu(0, 0.5, 2**30, 2**33), Gpu(1, None, 0, 2**33)]
    figures = shown(exposition=Exposition({}, None, lambda: gpus))
    assert figures("mien_gpu_use_ratio", gpu="0") == 0.5
    assert figures.values("mien_gpu_use_ratio", "gpu") == {"0"}
    assert figures("mien_gpu_memory_used_bytes", gpu="0") == 2**30
    assert figures("mien_gpu_memory_bytes", gpu="1") == 2**33
    assert not [name for name, *_ in shown().samples if name.startswith("mien_gpu")]


def test_without_a_driver_there_are_no_gpus_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    assert list(open_gpus()()) == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert list(open_gpus()()) == []
    assert [line.reason for line in caplog.records] == [
        *("Driver Not Loaded", "nvidia-ml-py is not installed")
    ]


def test_a_gpu_that_is_lost_or_does_not_tell_its_use_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through nvidia-ml-py's names; the driver behind them is made up."""

    def handle(index: int) -> int:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    def use(index: int) -> SimpleNamespace:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=40)

    for name, stand_in in {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(used=index, total=10),
        "nvmlDeviceGetUtilizationRates": use,
    }.items():
        monkeypatch.setattr(pynvml, name, stand_in)
    assert list(open_gpus()()) == [Gpu(1, None, 1, 10), Gpu(2, 0.4, 2, 10)]


def test_a_driver_that_goes_while_it_serves_takes_the_gpus_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", gone)
    assert list(open_gpus()()) == []


def test_processes_are_summed_and_the_oldest_began_first() -> None:
    """This process and a child that has some memory of its own."""
    code = "import sys; kept = bytearray(2**25); print(flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        me, other, both = (
            {family.name: family.samples[0].value for family in _processes(pids)}
            for pids in ([os.getpid()], [child.pid], [os.getpid(), child.pid])
        )
        assert child.stdin is not None
        child.stdin.close()
    assert other["process_resident_memory_bytes"] > 2**25
    memory = me["process_virtual_memory_bytes"] + other["process_virtual_memory_bytes"]
    assert both["process_virtual_memory_bytes"] == pytest.approx(memory, rel=0.05)
    assert both["process_start_time_seconds"] == me["process_start_time_seconds"]
    assert both["process_open_fds"] >= other["process_open_fds"] + 3


def test_what_a_dead_worker_said_of_the_moment_is_forgotten_and_its_counts_stay(
    tmp_path: Path,
) -> None:
    """A process that is no child of our parent is none of the workers, whoever has its id now."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    files = [f"gauge_livesum_{gone.pid}.db", f"counter_{gone.pid}.db", f"gauge_livesum_{1}.db"]
    for name in files:
        (tmp_path / name).touch()
    assert _living(tmp_path) == {os.getpid()}
    assert [path.name for path in tmp_path.iterdir()] == [f"counter_{gone.pid}.db"]


def test_a_file_that_a_worker_is_making_at_this_moment_hides_no_counts(tmp_path: Path) -> None:
    """prometheus_client opens it, and gives it its size a moment later."""
    file = MmapedDict(str(tmp_path / f"counter_{os.getpid()}.db"))
    file.write_value(mmap_key("mien_refused", "mien_refused_total", [], [], "Refused."), 3.0, 0.0)
    file.close()
    (tmp_path / f"histogram_{os.getpid()}.db").touch()
    told = shown(exposition=Exposition({}, tmp_path, no_gpus))
    assert told("mien_refused_total") == 3
