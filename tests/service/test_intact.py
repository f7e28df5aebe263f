"""service/inference/intact.py: whether models' files are what was loaded."""

import os
from pathlib import Path

import pytest

from service.inference import intact
from service.inference.artefact import load_artefact
from service.inference.intact import Intact
from tests.standin import NAME, recognition_graph, write_recognition


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recognition(tmp_path / NAME)


def test_files_as_they_were_loaded_are_intact_and_hashed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Intact([load_artefact(folder)])
    assert files.check() == []
    monkeypatch.setattr(intact.hashlib, "sha256", lambda _: pytest.fail("it was hashed again"))
    assert files.check() == []


def test_a_file_written_anew_with_the_same_bytes_is_intact(folder: Path) -> None:
    files = Intact([load_artefact(folder)])
    graph = folder / "model.onnx"
    files.check()
    graph.write_bytes(graph.read_bytes())
    os.utime(graph, (1, 1))
    assert files.check() == []


def test_a_change_between_the_loading_and_the_first_look_is_seen(folder: Path) -> None:
    artefact = load_artefact(folder)
    (folder / "model.onnx").write_bytes(recognition_graph(width=128))
    assert Intact([artefact]).check() == [
        f"model.onnx of the model {NAME} was changed on disk since it was loaded"
    ]


def test_a_changed_file_is_told_each_time_until_it_is_as_it_was(folder: Path) -> None:
    files = Intact([load_artefact(folder)])
    manifest = folder / "manifest.json"
    as_it_was = manifest.read_bytes()
    assert files.check() == []
    manifest.write_bytes(as_it_was + b"\n")
    assert len(files.check()) == len(files.check()) == 1
    manifest.unlink()
    assert "cannot be read any more: No such file" in files.check()[0]
    manifest.write_bytes(as_it_was)
    assert files.check() == []
