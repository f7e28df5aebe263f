"""A guarded server of two worker processes, as its operator and its callers see it."""

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from service.guard.audit import Audit, read_entries, verify
from service.guard.keys import KeyRing
from tests.drawn import drawn_photo
from tests.e2e.server import ROOT, serving


def mien(*words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """The command, run as by a user."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MIEN_")}
    environment |= {f"MIEN_{name.upper()}": str(value) for name, value in settings.items()}
    command = (sys.executable, "-c", "from service.cli import app; app()", *words)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_keys_and_limits_hold_over_all_worker_processes(tmp_path: Path) -> None:
    data, photo = tmp_path / "data", tmp_path / "drawn.png"
    photo.write_bytes(drawn_photo(1))
    ring = KeyRing(data / "keys.json", Audit(data / "audit.jsonl"), "test")
    made = mien("keys", "create", "desk", "--scope", "recognise", data=data)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    off = {"expression": "off", "attributes": "off", "photographs": 1}
    with serving(data, tmp_path / "log", workers=2, host="0.0.0.0", **off) as address:
        # Keyless and with a wrong key: refused; with the key in the environment: let in.
        for shown in ({}, {"key": "mien_wrong"}):
            refused = mien("identify", str(photo), "--url", address, **shown)
            assert (refused.returncode, "Key required" in refused.stderr) == (2, True)
        found = mien("identify", str(photo), "--url", address, key=key)
        assert found.returncode == 0, found.stderr

        limited = {"X-API-Key": ring.create("slow", ["recognise"], rate="30/hour")}
        assert statuses(address, limited, 60) == {200: 30, 429: 30}

        desk = {"X-API-Key": key}
        assert set(statuses(address, desk, 20)) == {200}
        assert mien("keys", "revoke", "desk", data=data).returncode == 0
        assert set(statuses(address, desk, 20)) == {401}
    assert verify(data / "audit.jsonl").flaw is None
    [searched] = [one for one in read_entries(data / "audit.jsonl") if one.action == "identify"]
    assert searched.actor == "desk"
    assert key not in (tmp_path / "log").read_text(encoding="utf-8")


def statuses(address: str, headers: dict[str, str], times: int) -> dict[int, int]:
    """How often each status was answered, over as many connections, so by every process."""

    def ask(_: int) -> int:
        return httpx.get(f"{address}/galleries", headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(4) as threads:
        return dict(Counter(threads.map(ask, range(times))))


def test_a_server_that_others_can_reach_does_not_start_without_a_key(tmp_path: Path) -> None:
    refused = mien("serve", data=tmp_path / "data", host="0.0.0.0", port=0)
    assert refused.returncode == 2
    assert "mien keys create NAME --scope SCOPE" in refused.stderr
    assert "MIEN_KEY_FILE" in refused.stderr
