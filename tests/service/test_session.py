"""service/inference/session.py: on the device that was asked for, or not at all."""

import numpy as np
import onnxruntime as ort
import pytest

from service.errors import SettingsError
from service.inference.session import GraphBroken, open_session, require_device
from tests.standin import recognition_graph


def test_a_session_says_what_it_takes_gives_and_computes_on() -> None:
    session = open_session(recognition_graph(), threads=1, device="cpu")
    assert session.inputs == {"crops": {"dtype": "uint8", "shape": ["n", 112, 112, 3]}}
    assert session.outputs == {"embeddings": {"dtype": "float32", "shape": ["n", 512]}}
    assert (session.provider, session.threads) == ("CPUExecutionProvider", 1)


def test_a_batch_equals_its_rows_alone() -> None:
    session = open_session(recognition_graph(), threads=1, device="cpu")
    crops = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    [together] = session.run(crops)
    alone = np.concatenate([session.run(crops[i : i + 1])[0] for i in range(5)])
    assert np.allclose(together, alone, atol=1e-5)


def test_bytes_that_are_no_graph_are_refused_without_ending_the_process() -> None:
    with pytest.raises(GraphBroken):
        open_session(b"no graph", threads=1, device="cpu")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this machine has CUDA"
)
def test_cuda_that_is_absent_is_refused_by_the_settings_name_and_not_replaced() -> None:
    with pytest.raises(SettingsError, match="MIEN_DEVICE: cuda is asked for"):
        require_device("cuda")
    with pytest.raises(SettingsError):
        open_session(recognition_graph(), threads=1, device="cuda")


def test_cuda_that_falls_back_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider is there but does not come up, as with a missing library or driver."""
    real = ort.InferenceSession
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda graph, options, providers: real(graph, options, ["CPUExecutionProvider"]),
    )
    with pytest.raises(SettingsError, match="has only CPUExecutionProvider"):
        open_session(recognition_graph(), threads=1, device="cuda")
