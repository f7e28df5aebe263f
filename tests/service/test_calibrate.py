"""mien calibrate as its user sees it: what is measured, left out, doubted, written and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.calibration.kept import Calibrations
from service.settings import Settings
from tests.drawn import drawn_photo
from tests.service.conftest import Mien
from tests.standin import NAME, SPACE


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder of eleven persons with two photographs each."""
    folder = tmp_path / "people"
    for person in range(11):
        for take in (0, 1):
            written(folder / f"person-{person}" / f"{take}.png", drawn_photo(person, take=take))
    return folder


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def told(mien: Mien, *words: object) -> Any:
    """What the command prints with --json."""
    done = mien("calibrate", *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_folder_s_people_are_measured_and_kept_under_its_name(
    mien: Mien, people: Path, settings: Settings
) -> None:
    report = told(mien, people)
    made = report["calibration"]
    assert (made["people"], made["crops"], made["mated_pairs"]) == (11, 22, 11)
    assert [row["target_fmr"] for row in made["thresholds"]] == [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    kept = Calibrations(settings.calibrations).get("people")
    assert (kept.space, kept.facts["model"], kept.calibration.people) == (SPACE, NAME, 11)
    manifest = json.loads((settings.models / NAME / "manifest.json").read_text())
    assert kept.facts["graph_sha256"] == manifest["sha256"]
    assert kept.facts["measured"].endswith("+00:00")
    assert {k: v for k, v in kept.facts.items() if k not in ("curve", "tail")} == made
    assert report["file"] == str(settings.calibrations / "people.json")
    assert not (settings.data / "gallery.sqlite3").exists()  # no gallery is asked


def test_no_name_and_no_path_of_the_people_is_written(
    mien: Mien, people: Path, settings: Settings
) -> None:
    written(people / "person-0" / "broken-file.png", b"no image")
    told(mien, people, "--name", "staff")
    text = (settings.calibrations / "staff.json").read_text()
    assert "person-" not in text
    assert "broken-file" not in text
    assert ".png" not in text
    assert json.loads(text)["left_out"] == 1


def test_the_table_has_a_row_a_target_and_says_what_was_not_measured(
    mien: Mien, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    done = mien("calibrate", people, "--name", "staff")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("22 photographs of 11 people measured (11 pairs of one person,")
    for target in ("0.1", "0.01", "0.001", "0.0001", "1e-05", "1e-06"):
        [row] = [line for line in done.stdout.splitlines() if line.startswith(f"│ {target} ")]
        assert "extrapolated" in row  # of 55 pairs of people
        assert row.count(" to ") == 3
    assert 'PATCH /galleries/NAME {"calibration": "staff"}' in done.stdout
    assert "wrong folder" not in done.stdout
    assert done.stderr == ""


def test_a_second_run_replaces_the_first_and_says_so(mien: Mien, people: Path) -> None:
    first = mien("calibrate", people)
    shutil.rmtree(people / "person-10")
    second = mien("calibrate", people)
    assert ("written: " in first.stdout, "replaced: " in second.stdout) == (True, True)
    assert "of 10 people measured" in second.stdout


def test_what_is_left_out_is_named_with_its_reason(mien: Mien, people: Path) -> None:
    written(people / "person-0" / "broken.png", b"no image")
    written(people / "person-1" / "wall.png", drawn_photo())
    written(people / "person-2" / "copy.png", (people / "person-2" / "0.png").read_bytes())
    written(people / "person-3" / "crowd.png", drawn_photo(3, 4, take=7, sides=(120, 60)))
    written(people / "notes.txt", b"")
    report = told(mien, people)
    reasons = {entry["file"]: entry["reason"] for entry in report["left_out"]}
    assert reasons.keys() == {
        "person-0/broken.png",
        "person-1/wall.png",
        "person-2/copy.png",
    }
    assert reasons["person-0/broken.png"].startswith("Not a readable image")
    assert reasons["person-1/wall.png"] == "no face found"
    assert reasons["person-2/copy.png"] == "the same file as person-2/0.png"
    assert report["several_faces"] == ["person-3/crowd.png"]
    assert report["calibration"]["crops"] == 23  # the crowd's largest is person 3
    assert report["unlike"] == []
    assert [entry["reason"] for entry in report["skipped"]] == ["not named as a photograph"]
    table = mien("calibrate", people)
    assert "3 left out, 1 files skipped; in 1 with several faces" in table.stdout
    assert "no face found" in table.stdout


def test_a_photograph_in_the_wrong_folder_is_found(mien: Mien, people: Path) -> None:
    written(people / "person-1" / "2.png", drawn_photo(2, take=5))
    report = told(mien, people)
    [unlike] = report["unlike"]
    assert unlike["file"] == "person-1/2.png"
    [alike] = report["alike"]
    assert "person-1/2.png" in alike["files"]
    assert any(file.startswith("person-2/") for file in alike["files"])
    assert alike["similarity"] > 0.8 > unlike["similarity"]
    table = mien("calibrate", people)
    assert "person-1/2.png" in table.stdout
    assert "These may lie in the wrong folder" in table.stdout


def test_a_person_with_one_photograph_counts_among_the_strangers(mien: Mien, people: Path) -> None:
    (people / "person-10" / "1.png").unlink()
    made = told(mien, people)["calibration"]
    assert (made["people"], made["crops"], made["mated_pairs"]) == (11, 21, 10)


def test_too_few_people_are_refused_with_their_number_before_any_work(
    mien: Mien, people: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for person in (0, 1):
        (people / f"person-{person}" / "0.png").unlink()

    def no_work(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as before:
        before.setattr("service.app.open_everything", no_work)
        done = mien("calibrate", people)
    assert done.exit_code == 2
    assert done.stderr == ("mien: 9 people have two photographs or more; a calibration needs 10\n")
    for person in (0, 1):
        written(people / f"person-{person}" / "0.png", drawn_photo())
    done = mien("calibrate", people)
    assert "needs 10 (2 photographs were left out)" in done.stderr
    assert not settings.data.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--name", "a b"), "'a b' cannot name a calibration: --name takes 1 to 128 of A-Z"),
        (("--name", "../gallery"), "cannot name a calibration"),
        (("--model", "none"), "none is refused"),
        (("--model", "mtcnn"), "where recognition is asked for"),
        (("--data", "PEOPLE/person-0/0.png"), "File exists"),
    ],
)
def test_what_cannot_be_done_is_a_line_on_stderr_and_status_2(
    mien: Mien, people: Path, settings: Settings, words: tuple[str, ...], message: str
) -> None:
    done = mien("calibrate", people, *(word.replace("PEOPLE", str(people)) for word in words))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("mien: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert Calibrations(settings.calibrations).names() == []


def test_what_a_system_put_there_is_measured_nowhere_and_named(mien: Mien, people: Path) -> None:
    for name in ("@Recycle", "person-0/@eaDir"):
        (people / name).mkdir()
        written(people / name / "1.png", drawn_photo(0, take=8))
    report = told(mien, people)
    assert {entry["file"]: entry["reason"] for entry in report["skipped"]} == {
        "@Recycle/1.png": "system folder @Recycle",
        "person-0/@eaDir/1.png": "system folder @eaDir",
    }
    assert report["calibration"]["crops"] == 22
    table = mien("calibrate", people).stdout
    assert "2 files skipped" in table
    assert "system folder @eaDir" in table


def test_a_folder_one_level_too_high_is_not_measured(mien: Mien, people: Path) -> None:
    done = mien("calibrate", people.parent, "--name", "staff")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mien: {people} holds folders of its own (person-0, ")


def test_an_empty_folder_has_no_people(mien: Mien, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "0 people have two photographs" in mien("calibrate", tmp_path / "empty").stderr


def test_a_name_that_another_space_has_is_not_taken_from_it(
    mien: Mien, people: Path, settings: Settings
) -> None:
    told(mien, people)
    calibrations = Calibrations(settings.calibrations)
    path = calibrations.keep("people", {**calibrations.get("people").facts, "space": "other/1"})
    before = path.read_bytes()
    done = mien("calibrate", people)
    assert done.exit_code == 2
    assert "of the embedding space other/1" in done.stderr
    assert path.read_bytes() == before
    path.write_text("{")  # a damaged one is nobody's
    assert told(mien, people)["replaced"]


def test_verify_goes_by_it(mien: Mien, people: Path) -> None:
    a, b = people / "person-0" / "0.png", people / "person-0" / "1.png"
    early = mien("verify", a, b, "--calibration", "people")
    assert (early.exit_code, "measure a calibration first" in early.stderr) == (2, True)
    told(mien, people)
    own = json.loads(mien("verify", a, b, "--calibration", "people", "--json").stdout)
    assert own["threshold"]["calibration"] == "people"
    assert "calibration people" in mien("verify", a, b, "--calibration", "people").stdout
    unknown = mien("verify", a, b, "--calibration", "none")
    assert (unknown.exit_code, "Unknown calibration" in unknown.stderr) == (2, True)


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """A folder of twelve others with one photograph each, some of them in a sub-folder."""
    folder = tmp_path / "others"
    for person in range(20, 32):
        below = folder / "below" if person % 2 else folder
        written(below / f"{person}.png", drawn_photo(person))
    return folder


def test_a_folder_of_strangers_becomes_a_population_of_the_calibration(
    mien: Mien, people: Path, strangers: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = told(mien, people, "--strangers", strangers)["calibration"]
    assert (made["people"], made["crops"]) == (11, 22)  # no stranger is among them
    population = made["populations"]["strangers"]
    assert (population["crops"], population["non_mated_pairs"]) == (12, 66)
    assert ("curve" in population, len(population["thresholds"])) == (False, 6)
    for row in population["thresholds"]:
        assert row["fmr_low"] <= row["fmr"] <= row["fmr_high"]
    kept = Calibrations(settings.calibrations).get("people").calibration
    assert kept.populations["strangers"].crops == 12
    text = (settings.calibrations / "people.json").read_text()
    assert ("others" in text, ".png" in text) == (False, False)
    images = [people / "person-0" / f"{take}.png" for take in (0, 1)]
    words = ("--calibration", "people", "--population", "strangers")
    done = mien("verify", *images, *words)
    assert done.exit_code == 0, done.output
    assert "calibration people, population strangers" in done.stdout
    assert "FNMR there" in done.stdout
    monkeypatch.setenv("COLUMNS", "160")
    table = mien("calibrate", people, "--strangers", strangers)
    assert "for the population strangers, 12 photographs (66 pairs;" in table.stdout


def test_strangers_who_are_one_person_are_told_of(
    mien: Mien, people: Path, strangers: Path
) -> None:
    written(strangers / "again.png", drawn_photo(20, take=1))
    written(strangers / "wall.png", drawn_photo())
    written(strangers / "notes.txt", b"")
    report = told(mien, people, "--strangers", strangers)
    assert report["calibration"]["populations"]["strangers"]["crops"] == 13
    pairs = [set(entry["files"]) for entry in report["alike_strangers"]]
    assert {str(strangers / "20.png"), str(strangers / "again.png")} in pairs
    assert [e["file"] for e in report["left_out"]] == [str(strangers / "wall.png")]
    assert [e["file"] for e in report["skipped"]] == [str(strangers / "notes.txt")]
    assert report["alike"] == []
    assert "may be one person" in mien("calibrate", people, "--strangers", strangers).stdout


def test_too_few_strangers_are_refused_before_any_work(
    mien: Mien, people: Path, strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for person in (20, 22, 24):
        (strangers / f"{person}.png").unlink()

    def no_work(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as before:
        before.setattr("service.app.open_everything", no_work)
        done = mien("calibrate", people, "--strangers", strangers)
    assert done.exit_code == 2
    assert f"{strangers}: 9 strangers; a population needs 10" in done.stderr
    written(strangers / "wall.png", drawn_photo())
    done = mien("calibrate", people, "--strangers", strangers)
    assert "9 strangers; a population needs 10 (1 photographs were left out)" in done.stderr
