"""CompreFace's tables in a real PostgreSQL, dumped by the real pg_dump, imported by the command."""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.gallery import open_gallery
from service.settings import Settings
from tests.drawn import drawn_photo
from tests.service.conftest import Mien

KEY = "aaaa0000-0000-0000-0000-000000000001"
# As CompreFace 1.2.0 makes them (its db.changelog-0.1.7.yaml).
TABLES = """
CREATE TABLE subject (id uuid PRIMARY KEY, api_key varchar(36), subject_name varchar(255),
    UNIQUE (api_key, subject_name));
CREATE TABLE img (id uuid PRIMARY KEY, content bytea NOT NULL);
CREATE TABLE embedding (id uuid PRIMARY KEY, subject_id uuid REFERENCES subject ON DELETE CASCADE,
    embedding float8[] NOT NULL, calculator varchar(255) NOT NULL, img_id uuid REFERENCES img);
"""
PEOPLE = {"Zo\u00eb O'Neil \\": [drawn_photo(0), drawn_photo(0, take=1)], "Ben": [drawn_photo(1)]}


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of PostgreSQL's programs."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not installed or not shutil.which("pg_dump"):
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    return installed[-1]


@contextmanager
def database(programs: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """The folder of a database's socket, and how to run what may not be run by root."""
    user = {}
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:  # it refuses to be run by root
            account = pwd.getpwnam("postgres")
            user = {"user": account.pw_uid, "group": account.pw_gid}
            os.chown(folder, account.pw_uid, account.pw_gid)
        control = [programs / "pg_ctl", "-D", f"{folder}/data", "-w", "-s"]
        alone = f"-c listen_addresses='' -k {folder} -F"
        made = [programs / "initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "frs", "-N"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **user)
        log = ["-l", f"{folder}/log", "-o", alone]
        subprocess.run([*control, *log, "start"], check=True, cwd=folder, **user)
        try:
            yield Path(folder), user
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd=folder, **user)


def filled() -> str:
    """SQL that makes the tables with PEOPLE in them."""
    rows, number = [TABLES], 0
    for name, photographs in PEOPLE.items():
        number += 1
        subject = f"00000000-0000-0000-0000-{number:012}"
        text = name.replace("'", "''")
        rows.append(f"INSERT INTO subject VALUES ('{subject}', '{KEY}', '{text}');")
        for photograph in photographs:
            number += 1
            key = f"00000000-0000-0000-0000-{number:012}"
            rows.append(rf"INSERT INTO img VALUES ('{key}', '\x{photograph.hex()}');")
            values = f"'{key}', '{subject}', '{{0.1,-2e-5}}', 'facenet.Calculator', '{key}'"
            rows.append(f"INSERT INTO embedding VALUES ({values});")
    return "\n".join(rows)


@pytest.fixture(scope="module")
def dumps(programs: Path) -> dict[str, bytes]:
    """What pg_dump says of the tables, with and without how they are made: in two orders."""
    tables = [word for table in ("subject", "img", "embedding") for word in ("-t", table)]
    with database(programs) as (socket, user):
        connected = ["-h", str(socket), "-U", "frs"]
        psql = ["psql", "-q", *connected, "-d", "postgres", "-v", "ON_ERROR_STOP=1"]
        environment = {**os.environ, "PGCLIENTENCODING": "UTF8"}
        subprocess.run(psql, input=filled().encode(), check=True, env=environment, **user)
        dump = ["pg_dump", *connected, "-d", "postgres", *tables]
        return {
            form: subprocess.check_output([*dump, *options], cwd=socket, **user)
            for form, options in (("data", ["--data-only"]), ("all", []))
        }


@pytest.mark.parametrize("form", ["data", "all"])
def test_what_pg_dump_says_of_compreface_s_tables_is_imported(
    dumps: dict[str, bytes], mien: Mien, settings: Settings, tmp_path: Path, form: str
) -> None:
    (tmp_path / "d.sql").write_bytes(dumps[form])
    done = mien("import", "compreface", tmp_path / "d.sql", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["refused"] == []
    store = open_gallery(settings.data)
    persons = {person.name: person.faces for person in store.list_persons("default").items}
    store.close()
    assert persons == {"Ben": 1, "Zo\u00eb O'Neil \\": 2}
