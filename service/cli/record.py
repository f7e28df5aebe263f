"""What a command did to a data folder, for its audit log."""

from pathlib import Path
from typing import Any

from service.cli.keys import user_name
from service.guard.audit import FILE, Audit, files_of


def note_in_audit(folder: Path, action: str, **what: Any) -> None:
    """Records what was done, where the folder has an audit log. Raises AuditUnavailable."""
    if files_of(folder / FILE):
        Audit(folder / FILE).record(f"cli:{user_name()}", action, **what)
