"""What ships is what it says of itself, to the word."""

import json
import shutil
from pathlib import Path

import pytest

from export.card import card
from export.check import faults, main
from service.settings import SHIPPED_MODELS
from tests.standin import write_recognition

SHIPPED = sorted(folder for folder in SHIPPED_MODELS.iterdir() if folder.is_dir())


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_model_that_ships_is_as_it_says(folder: Path) -> None:
    assert faults(folder) == []


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    folder = write_recognition(tmp_path / "a")
    size = (folder / "model.onnx").stat().st_size
    (folder / "calibration.png").write_bytes(b"a picture")
    return _rewritten(folder, bytes=size)


def _rewritten(folder: Path, **changes: object) -> Path:
    manifest = {**json.loads((folder / "manifest.json").read_text()), **changes}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "CARD.md").write_text(card(manifest))
    return folder


def test_a_card_changed_by_hand_is_found_with_its_line(artefact: Path) -> None:
    assert faults(artefact) == []
    page = artefact / "CARD.md"
    page.write_text(page.read_text().replace("| Apache-2.0 |", "| free for all |"))
    assert faults(artefact) == ["CARD.md is not the manifest's: they part at line 7"]
    page.unlink()
    assert faults(artefact) == ["CARD.md is not there"]


@pytest.mark.parametrize(("name", "value"), [("bytes", 7), ("opset", 17)])
def test_a_manifest_that_is_wrong_about_its_file_is_found(
    artefact: Path, name: str, value: int
) -> None:
    [fault] = faults(_rewritten(artefact, **{name: value}))
    assert fault.startswith(f"model.onnx: the manifest says {name} {value}, it has ")


def test_a_picture_that_the_card_shows_must_lie_beside_it(artefact: Path) -> None:
    (artefact / "calibration.png").unlink()
    assert faults(artefact) == ["calibration.png, which CARD.md shows, is not there"]


def test_what_the_service_refuses_is_a_fault(artefact: Path) -> None:
    with (artefact / "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    assert "sha256" in faults(artefact)[0]


def test_the_command_names_each_folder_and_fails_for_one_fault(
    artefact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "b"
    shutil.copytree(artefact, other)
    (other / "CARD.md").unlink()
    monkeypatch.setattr("sys.argv", ["check", str(artefact), str(other)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().out == (f"{artefact}: as it says\n{other}: CARD.md is not there\n")
