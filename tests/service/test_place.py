"""Where the command works: at a server or on a data folder, and how it says so."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.cli.door import reported
from service.settings import Settings
from tests.drawn import drawn_photo
from tests.service.conftest import Mien


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder of one person with one photograph."""
    folder = tmp_path / "people"
    (folder / "ada").mkdir(parents=True)
    (folder / "ada" / "0.png").write_bytes(drawn_photo(1))
    return folder


class _Server(BaseHTTPRequestHandler):
    """Says of itself what Mien does, and has no networks."""

    health: bytes = b'{"status": "ok"}'

    def do_GET(self) -> None:
        body = self.health if self.path == "/healthz" else b'{"items": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, mien: Mien) -> Iterator[str]:
    """The address of a service where `mien serve` would listen."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        port = listening.server_address[1]
        monkeypatch.setenv("MIEN_PORT", str(port))
        yield f"http://127.0.0.1:{port}"
        listening.shutdown()
        thread.join()


def test_the_data_folder_is_named_on_stderr_and_not_in_the_answer(
    mien: Mien, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIEN_DATA")
    monkeypatch.chdir(tmp_path)
    where = f"mien: data folder {tmp_path / 'mien-data'}\n"
    done = mien("enroll", people, "--json")
    assert (done.exit_code, done.stderr) == (0, where)
    assert len(json.loads(done.stdout)["enrolled"]) == 1
    photograph = people / "ada" / "0.png"
    for words in (
        ("identify", photograph),
        ("analyze", photograph, "--gallery", "default"),
        ("export-person", "ada"),
        ("sweep",),
        ("erase", "ada"),
        ("keys", "list"),
        ("audit", "verify"),
        ("audit", "head"),
        ("audit", "show", "--json"),
    ):
        done = mien(*words)
        assert (done.exit_code, done.stderr) == (0, where), words
        assert str(tmp_path / "mien-data") not in done.stdout
    assert mien("sweep", "--data", "mien-data").stderr == where


def test_commands_on_template_keys_name_the_data_folder(
    mien: Mien, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIEN_DATA")
    monkeypatch.chdir(tmp_path)
    mien("template-keys", "new", tmp_path / "template-keys")
    monkeypatch.setenv("MIEN_TEMPLATE_KEY_FILE", str(tmp_path / "template-keys"))
    assert mien("enroll", people).exit_code == 0
    for word in ("list", "rotate"):
        done = mien("template-keys", word)
        assert (done.exit_code, done.stderr) == (0, f"mien: data folder {tmp_path / 'mien-data'}\n")
    (tmp_path / "mien-data" / "data-keys.sqlite3").unlink()
    missing = f"mien: there is no {tmp_path / 'mien-data' / 'data-keys.sqlite3'}: nothing is sealed"
    assert missing in mien("template-keys", "list").stderr


def test_an_audit_log_that_is_not_there_is_named_by_its_absolute_path(
    mien: Mien, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIEN_DATA")
    monkeypatch.chdir(tmp_path)
    done = mien("audit", "verify")
    log = tmp_path / "mien-data" / "audit.jsonl"
    assert (done.exit_code, done.stderr) == (
        2,
        f"mien: there is no {log}: nothing was recorded\n",
    )


def test_a_failure_names_the_data_folder_in_its_line(
    mien: Mien, people: Path, settings: Settings
) -> None:
    done = mien("enroll", people, "--gallery", "none")
    problem = "Unknown gallery: there is no gallery 'none'"
    assert done.stderr == f"mien: {problem} (data folder {settings.data})\n"


@pytest.mark.parametrize("watched", [True, False])
def test_a_terminal_has_the_folder_before_the_work_and_a_log_after_it(
    settings: Settings,
    watched: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: watched)
    where = f"mien: data folder {settings.data}\n"
    with reported(settings.model_copy(update={"port": 0})):
        assert capsys.readouterr().err == (where if watched else "")
    assert capsys.readouterr().err == ("" if watched else where)


def test_what_asks_no_gallery_names_no_data_folder(mien: Mien, people: Path, server: str) -> None:
    photograph = people / "ada" / "0.png"
    for words in (("models",), ("verify", photograph, photograph), ("analyze", photograph)):
        done = mien(*words)
        assert (done.exit_code, done.stderr) == (0, ""), words


def test_a_service_that_answers_where_one_would_serve_is_named(
    mien: Mien, people: Path, settings: Settings, server: str
) -> None:
    hint = f"; a service answers on {server}: --url {server} asks it instead\n"
    early = mien("identify", people / "ada" / "0.png")
    missing = f"mien: there is no data folder {settings.data}: enrol somebody first"
    assert (early.exit_code, early.stderr) == (2, missing + hint)
    done = mien("enroll", people)
    assert (done.exit_code, done.stderr) == (0, f"mien: data folder {settings.data}{hint}")


def test_a_command_that_asks_no_server_names_none(
    mien: Mien, people: Path, settings: Settings, server: str, tmp_path: Path
) -> None:
    mien("enroll", people)
    for words in (("sweep",), ("backup", tmp_path / "copy")):
        done = mien(*words)
        assert (done.exit_code, done.stderr) == (0, f"mien: data folder {settings.data}\n"), words


def test_a_stranger_where_one_would_serve_is_not_taken_for_a_service(
    mien: Mien, people: Path, settings: Settings, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for health in (b"<html>", b'{"status": "starting"}', b"[]"):
        monkeypatch.setattr(_Server, "health", health)
        assert mien("enroll", people).stderr == f"mien: data folder {settings.data}\n"


def test_a_server_can_be_named_by_the_environment(
    mien: Mien, people: Path, settings: Settings, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_URL", server)
    asked = mien("models", "--json")
    assert (asked.exit_code, json.loads(asked.stdout), asked.stderr) == (0, [], "")
    monkeypatch.setenv("MIEN_URL", "nowhere")
    photograph = people / "ada" / "0.png"
    for words in (
        ("enroll", people),
        ("identify", photograph),
        ("verify", photograph, photograph),
        ("analyze", photograph),
        ("models",),
        ("export-person", "ada"),
        ("erase", "ada"),
    ):
        done = mien(*words)
        assert (done.exit_code, done.stdout) == (2, ""), words
        assert "nowhere gives no answer" in done.stderr, words
    assert not settings.data.exists()
    assert json.loads(mien("models", "--url", server, "--json").stdout) == []
    assert mien("enroll", people, "--data", settings.data).exit_code == 0
    assert settings.data.exists()
