"""The gate: whose key it is, whether there is room for one more request, and what is recorded.

What cannot be recorded is not done: `record` raises then, and the caller of the service is refused.
Refusals are another matter, since anyone can bring them about: the first of a kind is an entry of
its own, those of the next minute are counted and become one entry together. So a flood of wrong
keys adds at most an entry a minute (and one for each key that asks for what it may not), and a
refusal that cannot be recorded is a refusal all the same.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from service.errors import AuditUnavailable, KeyRequired, StorageUnavailable
from service.guard.audit import FILE as AUDIT
from service.guard.audit import Audit, Entry
from service.guard.keys import FILE as KEYS
from service.guard.keys import Key, Keys
from service.guard.limits import FILE as LIMITS
from service.guard.limits import Limits

NOBODY: Final = "nobody"  # shows no key, or none that holds
ANYONE: Final = "anyone"  # of a service without keys
REFUSED: Final = "access.refused"
KEYS_UNREADABLE: Final = "the keys cannot be read"
TOGETHER_S: Final = 60.0
_ITSELF: Final = "mien"


@dataclass
class _Tally:
    """Refusals of a kind that are not recorded yet. since_s: on the monotonic clock."""

    since_s: float
    count: int = 0


@dataclass
class Gate:
    """keys: None where callers need none; audit: None where nothing is recorded."""

    keys: Keys | None
    limits: Limits
    audit: Audit | None
    _tallies: dict[tuple[str, str], _Tally] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failure: str | None = None

    def require_key(self) -> None:
        """Nothing, when somebody could be let in. Raises KeyRequired where there is no key, and
        StorageUnavailable where the keys cannot be read."""
        if self.keys is not None and not any(key.secrets for key in self.keys.all()):
            raise KeyRequired

    def holder(self, shown: Sequence[str]) -> Key:
        """The key that was shown. Raises KeyRequired for none, for several that differ, and for one
        that does not hold: nobody learns which it was. StorageUnavailable."""
        assert self.keys is not None
        given = set(shown)
        key = self.keys.holder(given.pop()) if len(given) == 1 else None
        if key is None:
            raise KeyRequired
        return key

    def spend(self, key: Key) -> None:
        """Counts a request of the key. Raises RateLimited, QuotaSpent, StorageUnavailable."""
        self.limits.spend(key.name, key.rate, key.quota)

    def record(self, actor: str, action: str, **what: Any) -> Entry:
        """The entry. Raises AuditUnavailable."""
        assert self.audit is not None
        try:
            entry = self.audit.record(actor, action, **what)
        except AuditUnavailable as error:
            self._failure = str(error)
            raise
        self._failure = None
        return entry

    def refuse(self, actor: str, reason: str, **what: Any) -> None:
        """Notes that somebody was refused. what: of an entry of its own."""
        if self.audit is None:
            return
        now = time.monotonic()
        with self._lock:
            tally = self._tallies.setdefault((actor, reason), _Tally(now - TOGETHER_S))
            if due := now - tally.since_s >= TOGETHER_S:
                count, tally.count, tally.since_s = tally.count + 1, 0, now
            else:
                tally.count += 1
        if due:
            self._record_refusals(actor, reason, count, what)

    def check(self) -> list[str]:
        """Why callers are refused, a sentence each, that anybody may read.

        The log that could not be written is tried again, so that it recovers by itself.
        """
        reasons = []
        try:
            if self.keys is not None:
                self.keys.all()
        except StorageUnavailable:
            reasons.append(KEYS_UNREADABLE)
        try:
            if self._failure is not None:
                self.record(_ITSELF, "audit.resumed")
        except AuditUnavailable as error:
            reasons.append(str(error))
        if self.audit is not None and (flaw := self.audit.check()) is not None:
            reasons.append(flaw)
        return reasons

    def close(self) -> None:
        """Records the refusals that were counted, and closes the files."""
        for (actor, reason), tally in self._tallies.items():
            if tally.count:
                self._record_refusals(actor, reason, tally.count, {})
        self._tallies.clear()
        self.limits.close()

    def _record_refusals(self, actor: str, reason: str, count: int, what: dict[str, Any]) -> None:
        try:
            self.record(actor, REFUSED, reason=reason, count=count, **(what if count == 1 else {}))
        except AuditUnavailable:
            with self._lock:  # for the next entry
                self._tallies.setdefault((actor, reason), _Tally(time.monotonic())).count += count


def open_gate(data: Path, *, guarded: bool, audited: bool, secret_file: Path | None) -> Gate:
    """The gate of a data folder. Nothing is opened yet."""
    return Gate(
        Keys(data / KEYS, secret_file) if guarded else None,
        Limits(data / LIMITS),
        Audit(data / AUDIT) if guarded or audited else None,
    )
