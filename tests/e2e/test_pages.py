"""The examples of the pages do what the pages say, on a real server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import ROOT, serving
from tests.e2e.test_readme import answers

PHOTOGRAPH = Path(__file__).parent / "photographs" / "eileen-collins.jpg"
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def example(page: str, holding: str) -> str:
    """The one block of shell of a page that holds the text."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    [block] = [b for b in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if holding in b]
    return str(block)


def done(block: str, folder: Path, **environment: object) -> str:
    """What the shell says to the block, in a folder with ada.jpg; `mien` is this one's."""
    shutil.copy(PHOTOGRAPH, folder / "ada.jpg")
    own = {k: v for k, v in os.environ.items() if not k.startswith("MIEN")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    given = {name: str(value) for name, value in environment.items()}
    ended = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block],
        cwd=folder,
        env={**own, "PATH": path, "COLUMNS": "200", **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server, and its folder: in it `data` and `log`."""
    folder = tmp_path_factory.mktemp("service")
    with serving(folder / "data", folder / "log") as address:
        yield address, folder


def test_the_three_forms_of_an_image_find_the_same_face(
    service: tuple[str, Path], tmp_path: Path
) -> None:
    block = example("api.md", "--data-binary").replace("localhost:8000", service[0])
    found = answers(done(block, tmp_path))
    faces = [answer["images"][0]["faces"] for answer in found]
    assert len(faces) == 3
    assert len(faces[0]) == 1
    assert faces[0] == faces[1] == faces[2]


def test_who_is_erased_leaves_a_receipt_and_nothing_else(tmp_path: Path) -> None:
    data, keys = tmp_path / "data", tmp_path / "template-keys"
    done(f"mien template-keys new {keys}", tmp_path)
    with serving(data, tmp_path / "log", template_key_file=keys) as address:
        block = example("privacy.md", "/export")
        said = done(block, tmp_path, MIEN=address, MIEN_DATA=data)
        lines, _, verdict = said.rstrip("\n").rpartition("\n")
    gallery, enrolled, export, receipt, entry = answers(lines)
    assert (gallery["retention_days"], gallery["requires_consent"]) == (365, True)
    assert enrolled["person"]["id"] == export["person"]["id"] == receipt["person_id"] == "p-17"
    assert export["person"]["consent"]["reference"] == "form 17"
    assert len(export["faces"][0]["embedding"]) == 512
    told = {"deleted", "data-key-erased", "overwritten", "log-truncated"}
    assert set(receipt["done"]) == told
    assert (entry["what"]["receipt"], entry["sequence"]) == (receipt["receipt"], receipt["audit"])
    assert "hold" in verdict
    page = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    assert all(f"`{deed}`" in page for deed in told)


@pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq")
def test_the_log_answers_what_the_page_asks_of_it(
    service: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = service
    asked, failed, slow = example("operations.md", "jq").splitlines()
    logs = re.escape("docker compose logs --no-log-prefix mien")
    asked, failed, slow = (
        re.sub(logs, f"cat {folder / 'log'}", line) for line in (asked, failed, slow)
    )
    [request_id] = re.findall(r'== "(\w+)"', asked)
    identify = f"curl -sS -H 'X-Request-ID: {request_id}' -F image=@ada.jpg {address}/identify"
    done(identify, tmp_path)
    line = answers(done(asked, tmp_path))
    assert [(one["route"], one["request_id"]) for one in line] == [("/identify", request_id)]
    # Nothing failed but the question whether it was ready, while it was not.
    assert {one["route"] for one in answers(done(failed, tmp_path))} <= {"/readyz"}
    assert done(slow.replace("> 200", "> 0"), tmp_path).split()[-1] == request_id


def test_a_backup_is_taken_and_brought_back_as_the_page_says(
    service: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = service
    block = example("operations.md", "--data new-data")
    block = block.replace("/backup/", f"{tmp_path}/").replace("2026-11-22", "$(date +%F)")
    done(f"curl -sSf -F image=@ada.jpg -F person_id=p-17 {address}/enroll", tmp_path)
    said = done(block, tmp_path, MIEN_DATA=folder / "data")
    assert said.count("1 persons with 1 faces") == 2
    assert (tmp_path / "new-data" / "gallery.sqlite3").is_file()


def test_a_key_is_made_used_rotated_and_revoked_as_the_page_says(tmp_path: Path) -> None:
    create, ask, *rest = example("keys.md", "mien keys create").splitlines()
    data, owner = tmp_path / "data", tmp_path / "owner"
    owner.write_text("0123456789abcdef" * 2, encoding="ascii")
    key = done(create, tmp_path, MIEN_DATA=data).strip()
    with serving(data, tmp_path / "log", keys="required", key_file=owner) as address:
        asked = ask.replace("https://mien.example", address).replace("who.jpg", "ada.jpg")
        gallery = f"curl -sSf -H 'X-API-Key: {owner.read_text()}' --json '{{\"name\": \"staff\"}}'"
        done(f"{gallery} {address}/galleries", tmp_path)
        [found] = answers(done(asked, tmp_path, KEY=key))
        said = done("\n".join(rest), tmp_path, MIEN_DATA=data)
        [refused] = answers(done(asked, tmp_path, KEY=key))
    assert (found["gallery"], len(found["images"][0]["faces"])) == ("staff", 1)
    assert refused["type"] == "/problems/key-required"
    assert re.search(r"^\W*front-desk\W+recognise\W+staff", said, re.MULTILINE)
    assert re.search(r"^\d+ \S+ front-desk identify ", said, re.MULTILINE)
    assert re.search(r"^\d+ entries hold; the head is \d+:[0-9a-f]{64}$", said, re.MULTILINE)
