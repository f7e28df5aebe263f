"""Ten minutes of every attack at once, with good callers beside: make test-slow."""

import threading
import time
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from benchmarks.abuse import ATTACKS, BACK, Target
from benchmarks.memory import resident_mib
from tests.cartoon import cartoon_photograph
from tests.drawn import png
from tests.e2e.server import served

MIX_S: Final = 600.0
RECOVERY_S: Final = 180.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_good_callers_meet_nothing_but_503_in_ten_minutes_of_attacks(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    photograph, data = png(cartoon_photograph([(220, 120, 200)])), tmp_path / "data"
    with served(data, tmp_path / "log", **networks) as (address, process):
        ask(address, photograph, seconds=5)
        before_mib = resident_mib(process.pid)
        host, port = address.removeprefix("http://").split(":")
        target = Target(host, int(port), {}, threading.Event(), data)
        attackers = [
            threading.Thread(target=one.run, args=(target,), daemon=True) for one in ATTACKS
        ]
        for attacker in attackers:
            attacker.start()
        answers = ask(address, photograph, seconds=MIX_S)
        target.over.set()
        for attacker in attackers:
            attacker.join()
        assert answers["fine"] > 0
        assert answers["bad"] == []
        until = time.monotonic() + RECOVERY_S
        while resident_mib(process.pid) > BACK * before_mib and time.monotonic() < until:
            ask(address, photograph, seconds=1)
        assert resident_mib(process.pid) <= BACK * before_mib
        assert process.poll() is None


def ask(address: str, photograph: bytes, *, seconds: float) -> dict[str, Any]:
    """Calls of a good caller, one after another: how many were answered, and every answer that is
    neither a success nor 503 with Retry-After."""
    until, fine = time.monotonic() + seconds, 0
    bad: list[tuple[str, int, str]] = []
    with httpx.Client(base_url=address, timeout=300) as client:
        while time.monotonic() < until:
            for path in ("/detect", "/identify"):
                answer = client.post(
                    path, content=photograph, headers={"Content-Type": "image/png"}
                )
                if answer.status_code == 200:
                    fine += 1
                elif answer.status_code == 503 and "Retry-After" in answer.headers:
                    time.sleep(min(1.0, float(answer.headers["Retry-After"])))
                else:
                    bad.append((path, answer.status_code, answer.text[:300]))
    return {"fine": fine, "bad": bad}
