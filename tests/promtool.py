"""Prometheus' own lint of what /metrics answers."""

import shutil
import subprocess

import pytest

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def complaints(scrape: str) -> str:
    """What `promtool check metrics` finds wrong with a scrape; "" if it finds nothing."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0 or checked.stderr, checked
    return checked.stderr
