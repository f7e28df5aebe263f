"""Receipts of erasures: what was erased of whom, when and how far, kept in the audit log.

A receipt names a person by the id that the caller gave them, and nothing else of them: it is what
remains, to show that they were erased. So no id should be a name (docs/gallery.md).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ulid import ULID

from service.guard.audit import Audit
from service.guard.mentions import Mentions

ERASED: Final = "person.erased"  # asked for by a caller
EXPIRED: Final = "retention.erase"  # kept no longer by their gallery
FACES_LISTED: Final = 1000  # of a person's: an entry of the log has an end


class Receipts:
    """The receipts that lie in an audit log."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._mentions = Mentions(audit.path)

    def draft(
        self,
        *,
        gallery: str,
        person_id: str | None,
        faces: Sequence[str],
        time: datetime,
        done: Sequence[str],
        incomplete: str | None,
    ) -> dict[str, Any]:
        """A receipt that is not recorded yet."""
        return {
            "receipt": str(ULID()),
            "gallery": gallery,
            "person_id": person_id,
            "faces": len(faces),
            "face_ids": list(faces[:FACES_LISTED]),
            "erased": time.isoformat(),
            "done": list(done),
            "incomplete": incomplete,
        }

    def record(self, actor: str, action: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """The receipt, on the disk: `audit` is the number of its entry. action: ERASED or EXPIRED.

        Raises AuditUnavailable.
        """
        entry = self.audit.record(actor, action, **told)
        return {**told, "audit": entry.sequence}

    def find(self, gallery: str, receipt: str) -> dict[str, Any] | None:
        """The receipt of this id, of somebody of this gallery; None where there is none.

        Raises StorageUnavailable where the log cannot be read.
        """
        for entry in self._mentions.of(receipt):
            what = entry.what
            if what.get("receipt") == receipt and what.get("gallery") == gallery:
                return {**what, "audit": entry.sequence}
        return None

    def of_person(self, gallery: str, person_id: str) -> list[dict[str, Any]]:
        """What the log has of a person: sequence, time and action of each entry. Raises as find."""
        return [
            {"sequence": entry.sequence, "time": entry.time, "action": entry.action}
            for entry in self._mentions.of(person_id)
            if entry.what.get("gallery") == gallery
        ]
