"""The command as its user sees it: what it prints, what it leaves in the store, how it ends."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli import door
from service.gallery import open_gallery
from service.settings import Settings
from tests.drawn import drawn_photo
from tests.service.conftest import Mien
from tests.standin import NAME


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
        "loose.png": "in no person's folder",
    }
    assert sorted(entry["file"] for entry in outcome["enrolled"]) == [
        "ada/0.PNG",
        "ada/1.png",
        "ada/trip/9.png",
        "ben/0.png",
        "ben/1.png",
    ]


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("enroll", "PEOPLE", "--gallery", "none"), "Unknown gallery: there is no gallery 'none'"),
        (("enroll", "PEOPLE", "--face", "both"), "Invalid field: face is 'both'"),
        (("enroll", "PEOPLE/ada"), "has no photographs in folders of persons"),
        (("identify", "PEOPLE/ada/0.png"), "there is no data folder"),
        (("identify", "PEOPLE/ada/0.png", "--url", "nowhere"), "nowhere gives no answer"),
        (("models", "--url", "http://["), "http://[ gives no answer"),
        (("enroll", "PEOPLE", "--url", "http://a", "--data", "b"), "name one of them"),
        (("verify", "PEOPLE/ada/0.png", "PEOPLE/empty"), "Empty image: the image has no bytes"),
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
    assert message in done.stderr
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


def test_identify_counts_no_photograph_without_a_face_as_wrong(
    mien: Mien, people: Path, tmp_path: Path
) -> None:
    mien("enroll", people)
    done = mien("identify", written(tmp_path / "wall.png", drawn_photo()))
    assert (done.exit_code, "no face" in done.stdout) == (0, True)


def test_verify_tells_one_person_from_two(mien: Mien, people: Path, settings: Settings) -> None:
    same = json.loads(
        mien("verify", people / "ada" / "0.png", people / "ada" / "1.png", "--json").stdout
    )
    other = mien("verify", people / "ada" / "0.png", people / "ben" / "0.png")
    assert same["decision"] == "match"
    assert other.stdout.startswith("no_match: similarity ")
    assert not settings.data.exists()  # it asks no gallery, and leaves none behind


def test_models_are_listed_without_a_store(mien: Mien, settings: Settings) -> None:
    listed = json.loads(mien("models", "--json").stdout)
    assert [model["name"] for model in listed] == ["mtcnn", NAME]
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


def test_a_stranger_at_the_address_is_told_from_mien(mien: Mien) -> None:
    async def ask() -> Any:
        async with httpx.AsyncClient(transport=httpx.MockTransport(stranger)) as client:
            return door.answer_of(await client.get("http://stranger/models"))

    def stranger(request: httpx.Request) -> httpx.Response:
        return httpx.Response(502, text="<html>bad gateway</html>")

    with pytest.raises(door.Unable, match="http://stranger/models answers 502"):
        asyncio.run(ask())


def test_a_busy_service_is_asked_again() -> None:
    answers = iter([503, 503, 201])

    def busy(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers), headers={"Retry-After": "0"}, json={})

    async def ask() -> httpx.Response:
        transport = httpx.MockTransport(busy)
        async with httpx.AsyncClient(transport=transport, base_url="http://busy") as client:
            return await door.post(client, "/enroll", {}, [("image", b"x")])

    assert asyncio.run(ask()).status_code == 201
