"""What several tests of the service stand on."""

import os
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.settings import PREFIX, Settings
from tests.conftest import open_drawn
from tests.logged import restored_logging

Mien = Callable[..., Result]


@pytest.fixture
def mien(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mien]:
    """Runs the command on a store of its own; faces are the drawn ones.

    Port 0: `serve` listens where nobody does. The log is put back, which `serve` sets up.
    """
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name in ("models", "recognition", "data"):
        monkeypatch.setenv(PREFIX + name.upper(), str(getattr(settings, name)))
    monkeypatch.setenv(f"{PREFIX}PORT", "0")  # the default may be another service's
    monkeypatch.setattr("service.app.open_everything", open_drawn)
    with restored_logging():
        yield lambda *words: CliRunner().invoke(app, [str(word) for word in words])
