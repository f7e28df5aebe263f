"""The command as its user sees it: what it prints, what it leaves in the store, how it ends."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
from typer.testing import Result

from service.cli import door
from service.gallery import open_gallery
from service.settings import Settings
from tests.drawn import drawn_photo
from tests.service.conftest import Mien
from tests.standin import NAME, write_round


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder of two persons with two photographs each."""
    folder = tmp_path / "people"
    for number, person in enumerate(("ada", "ben")):
        (folder / person).mkdir(parents=True)
        for take in (0, 1):
            photo = drawn_photo(number, take=take)
            (folder / person / f"{take}.png").write_bytes(photo)
    return folder


def faces_of(settings: Settings, person: str, gallery: str = "default") -> int:
    store = open_gallery(settings.data)
    try:
        return store.get_person(gallery, person).faces
    finally:
        store.close()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_folder_is_enrolled_a_person_a_sub_folder(
    mien: Mien, people: Path, settings: Settings, tmp_path: Path
) -> None:
    done = mien("enroll", people)
    assert done.exit_code == 0, done.output
    assert "4 photographs enrolled, 0 there before (2 persons" in done.stdout
    assert (faces_of(settings, "ada"), faces_of(settings, "ben")) == (2, 2)

    unknown = written(tmp_path / "unknown.png", drawn_photo(1, take=9))
    found = json.loads(mien("identify", unknown, "--json").stdout)
    [face] = found[0]["answer"]["images"][0]["faces"]
    assert face["candidates"][0]["name"] == "ben"
    table = mien("identify", unknown)
    assert (table.exit_code, "ben" in table.stdout) == (0, True)


def test_a_second_run_enrols_nothing_twice_whatever_its_options(
    mien: Mien, people: Path, settings: Settings
) -> None:
    mien("enroll", people)
    written(people / "ada" / "2.png", drawn_photo(0, take=2))
    again = json.loads(mien("enroll", people, "--json").stdout)
    new = [entry["file"] for entry in again["enrolled"] if not entry["before"]]
    assert (new, len(again["enrolled"])) == (["ada/2.png"], 5)
    otherwise = mien("enroll", people, "--face", "largest")
    assert "0 photographs enrolled, 5 there before" in otherwise.stdout
    assert faces_of(settings, "ada") == 3


def enrolled_of(done: Result) -> dict[str, tuple[bool, bool]]:
    """Of each file that is there, whether it was before, and with options that ask for less."""
    entries = json.loads(done.stdout)["enrolled"]
    return {entry["file"]: (entry["before"], entry["other_options"]) for entry in entries}


def test_a_second_run_says_which_photographs_its_options_were_not_applied_to(
    mien: Mien, people: Path, settings: Settings
) -> None:
    written(people / "ben" / "crowd.png", drawn_photo(1, 4, take=7, sides=(112, 60)))
    written(people / "ben" / "small.png", drawn_photo(1, take=8, sides=(20,)))
    assert mien("enroll", people, "--face", "largest").exit_code == 0
    strict = mien("enroll", people, "--quality", "strict", "--json")
    assert strict.exit_code == 1
    assert set(enrolled_of(strict).values()) == {(True, True)}
    only = mien("enroll", people, "--face", "only")
    assert only.exit_code == 1
    assert "enrolled before with options that ask for less" in only.stdout
    assert "run it again with --again" in only.stdout
    assert (faces_of(settings, "ada"), faces_of(settings, "ben")) == (2, 4)


def test_options_that_ask_for_less_than_the_first_run_s_are_met(
    mien: Mien, people: Path, settings: Settings
) -> None:
    for number, file in enumerate(sorted(people.rglob("*.png"))):
        written(file, drawn_photo(number // 2, take=number, sides=(40,)))  # good enough
    written(people / "ben" / "small.png", drawn_photo(1, take=8, sides=(20,)))
    assert "4 photographs enrolled" in mien("enroll", people, "--quality", "standard").stdout
    for options in (("--quality", "off"), ("--quality", "off", "--face", "largest")):
        done = mien("enroll", people, *options, "--json")
        met = {file: told for file, told in enrolled_of(done).items() if "small" not in file}
        assert (len(met), set(met.values())) == (4, {(True, False)})
    assert done.exit_code == 0
    assert faces_of(settings, "ben") == 3


def test_what_was_erased_is_enrolled_again_when_that_is_said(
    mien: Mien, people: Path, settings: Settings
) -> None:
    first = json.loads(mien("enroll", people, "--json").stdout)["enrolled"]
    face = next(entry["face_id"] for entry in first if entry["file"] == "ada/0.png")
    store = open_gallery(settings.data)
    store.delete_face("default", "ada", face)
    store.close()
    assert mien("erase", "ben").exit_code == 0
    for options in ((), ("--quality", "standard")):
        table = mien("enroll", people, *options)
        assert table.exit_code == 1
        assert "3 refused" in table.stdout
        assert "run it again with --again" in table.stdout
    once, twice = (mien("enroll", people, "--again", "--json") for _ in range(2))
    assert (once.exit_code, twice.exit_code) == (0, 0)
    assert sorted(before for before, _ in enrolled_of(once).values()) == [False] * 3 + [True]
    assert set(enrolled_of(twice).values()) == {(True, False)}
    assert (faces_of(settings, "ada"), faces_of(settings, "ben")) == (2, 2)
    without = mien("enroll", people)
    assert "3 refused" in without.stdout
    assert "those that an earlier --again enrolled are there" in " ".join(without.stdout.split())
    mien("erase", "ben")  # and once more
    assert mien("enroll", people, "--again").exit_code == 0
    assert faces_of(settings, "ben") == 2


def test_the_folder_s_name_renames_nobody(mien: Mien, people: Path, settings: Settings) -> None:
    mien("enroll", people)
    store = open_gallery(settings.data)
    store.update_person("default", "ada", name="Ada Lovelace")
    store.close()
    written(people / "ada" / "2.png", drawn_photo(0, take=2))
    assert mien("enroll", people).exit_code == 0
    store = open_gallery(settings.data)
    names = [store.get_person("default", person).name for person in ("ada", "ben")]
    store.close()
    assert names == ["Ada Lovelace", "ben"]
    assert faces_of(settings, "ada") == 3


@pytest.mark.usefixtures("wide")
def test_a_photograph_in_the_wrong_folder_is_warned_of(mien: Mien, people: Path) -> None:
    mien("enroll", people)
    written(people / "ada" / "wrong.png", drawn_photo(1, take=9))
    done = mien("enroll", people)
    assert done.exit_code == 0
    assert "image 0 is like person 'ben'" in done.stdout
    assert "image 0 is hardly like this person's other faces" in done.stdout
    assert "warning" not in mien("enroll", people).stdout  # it was told when it was enrolled


def test_a_network_that_was_trained_again_enrols_and_finds_nobody_in_the_old_ones_gallery(
    mien: Mien, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    """The same name, another training: what was enrolled is not there for the new one."""
    first, second = (write_round(tmp_path / f"{n}", models, seed=n) for n in (7, 8))
    monkeypatch.setenv("MIEN_MODELS", str(first))
    assert mien("enroll", people).exit_code == 0
    assert "4 there before" in mien("enroll", people).stdout
    monkeypatch.setenv("MIEN_MODELS", str(second))
    for words in (("enroll", people), ("identify", people / "ada" / "0.png")):
        done = mien(*words)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "Another embedding space: the gallery 'default' holds" in done.stderr


def test_what_is_refused_is_named_with_its_reason_and_the_rest_goes_on(
    mien: Mien, people: Path, settings: Settings
) -> None:
    written(people / "ada" / "broken.png", b"no image")
    written(people / "ben" / "crowd.png", drawn_photo(3, 4))
    written(people / "ben" / "empty.jpg", b"")
    done = mien("enroll", people, "--json")
    assert done.exit_code == 1
    outcome = json.loads(done.stdout)
    refused = {entry["file"]: entry["problem"]["type"] for entry in outcome["refused"]}
    assert refused == {
        "ada/broken.png": "/problems/image-unreadable",
        "ben/crowd.png": "/problems/several-faces",
        "ben/empty.jpg": "/problems/image-empty",
    }
    assert (faces_of(settings, "ada"), faces_of(settings, "ben")) == (2, 2)
    table = mien("enroll", people)
    assert table.exit_code == 1
    assert "3 refused" in table.stdout
    assert "Several faces" in table.stdout


def test_odd_files_are_left_alone_and_counted(mien: Mien, people: Path) -> None:
    written(people / ".DS_Store", b"x")
    written(people / "ada" / "._0.png", b"x")
    written(people / "ada" / "notes.txt", b"x")
    written(people / "loose.png", drawn_photo(5))
    (people / "ada" / "gone.png").symlink_to(people / "nowhere.png")
    (people / "cleo").symlink_to(people / "ben")
    (people / "nobody").mkdir()
    (people / "ada" / "0.png").rename(people / "ada" / "0.PNG")
    (people / "ada" / "trip").mkdir()
    written(people / "ada" / "trip" / "9.png", drawn_photo(0, take=9))
    done = mien("enroll", people, "--json")
    assert done.exit_code == 0
    outcome = json.loads(done.stdout)
    assert {entry["file"]: entry["reason"] for entry in outcome["skipped"]} == {
        ".DS_Store": "hidden",
        "ada/._0.png": "hidden",
        "ada/notes.txt": "not named as a photograph",
        "ada/gone.png": "no file, or a link to none",
        "cleo": "a link to a folder",
        "loose.png": "in no person's folder",
    }
    assert sorted(entry["file"] for entry in outcome["enrolled"]) == [
        "ada/0.PNG",
        "ada/1.png",
        "ada/trip/9.png",
        "ben/0.png",
        "ben/1.png",
    ]


@pytest.mark.usefixtures("wide")
def test_recycle_bins_and_thumbnails_of_systems_become_nobody_and_are_named(
    mien: Mien, people: Path
) -> None:
    left = {
        "#recycle/cleo/1.png": "system folder #recycle",
        "#recycle/cleo/2.png": "system folder #recycle",
        "ada/@eaDir/0.png/SYNOPHOTO_THUMB_XL.png": "system folder @eaDir",
        "ada/SYNOFILE_THUMB_M.png": "system file SYNOFILE_THUMB_M.png",
    }
    for number, name in enumerate(left):
        (people / name).parent.mkdir(parents=True, exist_ok=True)
        written(people / name, drawn_photo(10 + number))
    outcome = json.loads(mien("enroll", people, "--json").stdout)
    assert {entry["file"]: entry["reason"] for entry in outcome["skipped"]} == left
    assert {entry["person_id"] for entry in outcome["enrolled"]} == {"ada", "ben"}
    assert len(outcome["enrolled"]) == 4
    table = mien("enroll", people).stdout
    assert "4 files skipped" in table
    counts = {cells[2]: cells[1] for line in table.splitlines() if len(cells := parts(line)) == 4}
    assert counts["system folder #recycle"] == "2"
    assert counts["system folder @eaDir"] == "1"


def parts(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("│")]


def test_a_folder_one_level_too_high_makes_nobody(
    mien: Mien, people: Path, settings: Settings
) -> None:
    done = mien("enroll", people.parent)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mien: {people} holds folders of its own (ada, ben)")
    assert f"give {people} if those are people" in done.stderr
    assert not settings.data.exists()
    assert mien("enroll", people).exit_code == 0


def test_a_name_that_no_call_can_carry_is_skipped(mien: Mien, people: Path) -> None:
    odd = os.fsencode(people) + b"/\xff\xfe"
    os.mkdir(odd)
    with open(odd + b"/1.png", "wb") as file:
        file.write(drawn_photo(7))
    outcome = json.loads(mien("enroll", people, "--json").stdout)
    assert [entry["reason"] for entry in outcome["skipped"]] == ["its path is not UTF-8"]
    assert len(outcome["enrolled"]) == 4


def test_names_of_any_script_are_one_person_however_they_are_composed(
    mien: Mien, tmp_path: Path, settings: Settings
) -> None:
    for take, name in enumerate(("Zo\u00eb [1]", "Zoe\u0308 [1]")):
        (tmp_path / "people" / name).mkdir(parents=True)
        written(tmp_path / "people" / name / f"{take}.png", drawn_photo(2, take=take))
    assert mien("enroll", tmp_path / "people").exit_code == 0
    assert faces_of(settings, "Zo\u00eb [1]") == 2


def test_a_folder_is_enrolled_with_everybodys_consent(
    mien: Mien, people: Path, settings: Settings
) -> None:
    store = open_gallery(settings.data)
    store.create_gallery("staff", requires_consent=True)
    store.close()
    without = mien("enroll", people, "--gallery", "staff")
    assert (without.exit_code, without.stdout.count("No record of consent")) == (1, 4)
    time = "2026-07-31T09:30:00+00:00"
    consent = {"basis": "explicit-consent", "time": time, "reference": "form 17"}
    done = mien("enroll", people, "--gallery", "staff", "--consent", json.dumps(consent))
    assert (done.exit_code, faces_of(settings, "ada", "staff")) == (0, 2)
    kept = json.loads(mien("export-person", "ben", "--gallery", "staff").stdout)
    assert kept["person"]["consent"] == consent


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("enroll", "PEOPLE", "--consent", "yes"), "Invalid field: consent is 'yes'"),
        (("enroll", "PEOPLE", "--gallery", "none"), "Unknown gallery: there is no gallery 'none'"),
        (("enroll", "PEOPLE", "--face", "both"), "Invalid field: face is 'both'"),
        (("enroll", "PEOPLE/ada"), "has no photographs in folders of persons"),
        (("identify", "PEOPLE/ada/0.png"), "there is no data folder"),
        (("identify", "PEOPLE/ada/0.png", "--url", "nowhere"), "nowhere gives no answer"),
        (("models", "--url", "http://["), "http://[ gives no answer"),
        (("enroll", "PEOPLE", "--url", "http://a", "--data", "b"), "name one of them"),
        (("verify", "PEOPLE/ada/0.png", "PEOPLE/empty"), "PEOPLE/empty: Empty image: the image"),
        (("verify", "PEOPLE/ada/0.png", "PEOPLE/ada/1.png", "--threshold", "2"), "Invalid field"),
    ],
)
def test_what_cannot_be_done_is_a_line_on_stderr_and_status_2(
    mien: Mien, people: Path, words: tuple[str, ...], message: str
) -> None:
    written(people / "empty", b"")
    done = mien(*(word.replace("PEOPLE", str(people)) for word in words))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("mien: ")
    assert message.replace("PEOPLE", str(people)) in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_bad_photograph_leaves_the_others_their_answer(
    mien: Mien, people: Path, tmp_path: Path
) -> None:
    mien("enroll", people)
    broken = written(tmp_path / "broken.png", b"no image")
    good = people / "ada" / "0.png"
    done = mien("identify", broken, good, "--json")
    assert done.exit_code == 2
    assert f"{broken}: Not a readable image" in done.stderr
    first, second = json.loads(done.stdout)
    assert (first["answer"], first["problem"]["status"]) == (None, 422)
    assert second["answer"]["images"][0]["faces"][0]["candidates"][0]["person_id"] == "ada"
    alone = mien("identify", broken)
    assert (alone.exit_code, alone.stdout) == (2, "")


def test_identify_counts_no_photograph_without_a_face_as_wrong(
    mien: Mien, people: Path, tmp_path: Path
) -> None:
    mien("enroll", people)
    done = mien("identify", written(tmp_path / "wall.png", drawn_photo()))
    assert (done.exit_code, "no face" in done.stdout) == (0, True)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no cell of a table is folded."""
    monkeypatch.setenv("COLUMNS", "2000")


@pytest.mark.usefixtures("wide")
def test_analyze_prints_what_each_face_shows(mien: Mien, tmp_path: Path) -> None:
    two = written(tmp_path / "two.png", drawn_photo(1, 2, sides=(112, 60)))
    wall = written(tmp_path / "wall.png", drawn_photo())
    done = mien("analyze", two, wall, "--json")
    assert done.exit_code == 0, done.output
    shown, empty = json.loads(done.stdout)
    assert empty["answer"]["images"][0]["faces"] == []
    first, second = shown["answer"]["images"][0]["faces"]
    assert all(
        {"expression", "attributes", "quality_gate"} <= set(face) for face in (first, second)
    )
    assert not {"candidates", "embedding"} & set(first)

    table = mien("analyze", two, wall).stdout
    for told in (
        f"{first['expression']['label']} {100 * first['expression']['confidence']:.0f} %",
        f"{first['quality']['score']:.2f}",
        next(name for name, one in first["attributes"].items() if one["present"]),
        f"{two}\n",
        "no face",
    ):
        assert told in table, table


def test_analyze_asks_for_the_features_that_are_named_and_for_no_others(
    mien: Mien, people: Path
) -> None:
    done = mien("analyze", people / "ada" / "0.png", "--features", "quality,embedding", "--json")
    [face] = json.loads(done.stdout)[0]["answer"]["images"][0]["faces"]
    assert {"quality_gate", "embedding"} <= set(face)
    assert not {"expression", "attributes", "candidates"} & set(face)
    wrong = mien("analyze", people / "ada" / "0.png", "--features", "mood")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "Invalid field" in wrong.stderr


def test_analyze_does_without_what_a_deployment_has_switched_off(
    mien: Mien, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_EXPRESSION", "off")
    photograph = people / "ada" / "0.png"
    [face] = json.loads(mien("analyze", photograph, "--json").stdout)[0]["answer"]["images"][0][
        "faces"
    ]
    assert "expression" not in face
    assert "attributes" in face
    asked = mien("analyze", photograph, "--features", "expression")
    assert asked.exit_code == 2
    assert "MIEN_EXPRESSION" in asked.stderr


@pytest.mark.usefixtures("wide")
def test_analyze_names_the_people_of_a_gallery(mien: Mien, people: Path) -> None:
    nowhere = mien("analyze", people / "ada" / "0.png", "--gallery", "default")
    assert "there is no data folder" in nowhere.stderr
    mien("enroll", people)
    done = mien("analyze", people / "ada" / "0.png", "--gallery", "default")
    assert done.exit_code == 0, done.output
    assert "match ada 1.000" in done.stdout
    assert "match from" in done.stdout


@pytest.mark.usefixtures("wide")
def test_analyze_says_why_a_face_too_small_is_not_told(mien: Mien, tmp_path: Path) -> None:
    small = written(tmp_path / "small.png", drawn_photo(1, sides=(42,)))
    done = mien("analyze", small)
    assert done.exit_code == 0
    assert "face too small" in done.stdout


@pytest.mark.usefixtures("wide")
def test_analyze_draws_the_photograph_with_its_faces(
    mien: Mien, people: Path, tmp_path: Path
) -> None:
    (people / "ada").rename(people / "Zo\u00eb")
    (people / "ben").rename(people / "\u0639\u0645\u0631")
    mien("enroll", people)
    two = written(tmp_path / "two.png", drawn_photo(0, 1))
    out = tmp_path / "drawn.png"
    done = mien("analyze", two, "--gallery", "default", "--draw", out)
    assert done.exit_code == 0, done.output
    before, after = (cv2.imread(str(path)) for path in (two, out))
    assert before.shape == after.shape
    for x in (19, 143):
        assert (after[19:131, x : x + 112] != before[19:131, x : x + 112]).any()
        assert (after[140:190, x : x + 112] == 255).all(axis=2).any()  # text below
    assert "its letters cannot be drawn: 2 \u0639\u0645\u0631" in done.stderr
    assert "Zo\u00eb" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ONE", "ONE", "--draw", "OUT.png"), "--draw takes one photograph, and 2 were given"),
        (("ONE", "--draw", "OUT.jpg"), "--draw writes a .png"),
        (("ONE", "--draw", "nowhere/OUT.png"), "No such file or directory"),
    ],
)
def test_analyze_says_what_it_cannot_draw(
    mien: Mien, people: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    places = {"ONE": str(people / "ada" / "0.png")}
    done = mien(
        "analyze", *(places.get(word, word.replace("OUT", str(tmp_path / "o"))) for word in words)
    )
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_photograph_that_cannot_be_analyzed_is_named_and_not_drawn(
    mien: Mien, people: Path, tmp_path: Path
) -> None:
    broken, out = written(tmp_path / "broken.png", b"no image"), tmp_path / "out.png"
    done = mien("analyze", broken, "--draw", out)
    assert done.exit_code == 2
    assert f"{broken}: Not a readable image" in done.stderr
    assert not out.exists()
    both = mien("analyze", broken, people / "ada" / "0.png", "--json")
    assert both.exit_code == 2
    assert json.loads(both.stdout)[1]["answer"] is not None


def test_an_enrolment_below_a_quality_says_all_that_is_wrong(mien: Mien, tmp_path: Path) -> None:
    folder = tmp_path / "people" / "ada"
    folder.mkdir(parents=True)
    written(folder / "small.png", drawn_photo(60, sides=(20,)))
    outcome = json.loads(mien("enroll", folder.parent, "--quality", "strict", "--json").stdout)
    [refused] = outcome["refused"]
    reasons = [one["reason"] for one in refused["problem"]["failed"]]
    assert reasons == ["sharpness-too-low", "inter-eye-distance-too-low"]
    for one in refused["problem"]["failed"]:
        assert one["component"] in refused["problem"]["detail"]


def test_verify_tells_one_person_from_two(mien: Mien, people: Path, settings: Settings) -> None:
    same = json.loads(
        mien("verify", people / "ada" / "0.png", people / "ada" / "1.png", "--json").stdout
    )
    other = mien("verify", people / "ada" / "0.png", people / "ben" / "0.png")
    assert same["decision"] == "match"
    assert other.stdout.startswith("no_match: similarity ")
    assert not settings.data.exists()  # it asks no gallery, and leaves none behind


@pytest.mark.parametrize(
    "words", [("erase", "."), ("export-person", ".."), ("erase", "ada", "--gallery", "..")]
)
def test_what_a_path_would_lose_is_not_asked_for(
    mien: Mien, people: Path, words: tuple[str, ...]
) -> None:
    mien("enroll", people)
    done = mien(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is the name of no gallery and the id of no person" in done.stderr


def test_models_are_listed_without_a_store(mien: Mien, settings: Settings) -> None:
    listed = json.loads(mien("models", "--json").stdout)
    assert {"mtcnn", NAME} <= {model["name"] for model in listed}
    assert NAME in mien("models").stdout
    assert not settings.data.exists()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MIEN_PORT", "a door", "MIEN_PORT: "),
        ("MIEN_MODELS", "/nowhere", "the model in /nowhere/mtcnn is refused"),
        ("MIEN_DEVICE", "cuda", "MIEN_DEVICE: cuda is asked for"),
    ],
)
def test_serve_says_what_keeps_it_from_serving(
    mien: Mien, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    done = mien("serve")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"mien: {message}")


def test_an_address_that_cannot_be_listened_on_keeps_it_from_serving(
    mien: Mien, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MIEN_PORT", str(taken.getsockname()[1]))
        done = mien("serve")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("mien: MIEN_PORT: Address already in use")


def test_a_stranger_at_the_address_is_told_from_mien(mien: Mien) -> None:
    async def ask() -> Any:
        async with httpx.AsyncClient(transport=httpx.MockTransport(stranger)) as client:
            return door.answer_of(await client.get("http://stranger/models"))

    def stranger(request: httpx.Request) -> httpx.Response:
        return httpx.Response(502, text="<html>bad gateway</html>")

    with pytest.raises(door.Unable, match="http://stranger/models answers 502"):
        asyncio.run(ask())


@pytest.mark.parametrize("key", ["ключ", "two words", "a line\nand another"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, mien: Mien, key: str
) -> None:
    monkeypatch.setenv("MIEN_KEY", key)
    done = mien("models", "--url", "http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("mien: MIEN_KEY is no key")
    assert key not in done.stderr


def test_a_busy_service_is_asked_again() -> None:
    assert posted([503, 503, 201], after="0").status_code == 201


def test_a_date_to_ask_again_at_is_read_as_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a proxy before the service may write it."""
    monkeypatch.setattr(door, "_PATIENCE_S", 0.0)
    assert posted([503], after="Sun, 22 Nov 2026 17:00:00 GMT").status_code == 503


def posted(statuses: Sequence[int], *, after: str) -> httpx.Response:
    """What comes of a call that is answered with these, one after the other."""
    answers = iter(statuses)

    def busy(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers), headers={"Retry-After": after}, json={})

    async def ask() -> httpx.Response:
        transport = httpx.MockTransport(busy)
        async with httpx.AsyncClient(transport=transport, base_url="http://busy") as client:
            return await door.post(client, "/enroll", {}, [("image", b"x")])

    return asyncio.run(ask())


def test_the_command_is_there_for_a_client_without_index_and_runtime() -> None:
    """As `pip install mien` alone leaves it: a client of a server elsewhere."""
    hidden = (
        "import sys\n"
        "sys.modules.update({'faiss': None, 'onnxruntime': None})\n"
        "from service.cli import app\n"
        "app(['--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert (done.returncode, "enroll" in done.stdout) == (0, True), done.stderr
