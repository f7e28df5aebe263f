"""The keys that callers show: made, rotated and revoked in one file, and read from it when it
changes.

keys.json holds of each key its name, its scopes, its galleries, its limits and the SHA-256 of its
secrets; no secret can be had from it. A plain hash is enough, and a slow one (scrypt, Argon2) would
only make every request slow: those are for passwords, which can be guessed, and nobody guesses 256
random bits. The file is replaced whole, under a lock, and looked at with each request (one stat),
so that a key that was revoked is refused by every worker process from then on.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from service.errors import StorageUnavailable
from service.guard.audit import Audit
from service.guard.limits import require_quota, require_rate

FILE: Final = "keys.json"
PREFIX: Final = "mien_"
# What each allows; docs/keys.md has it call by call.
SCOPES: Final = ("recognise", "enrol", "embed", "expression", "administer", "observe")
FROM_FILE: Final = "key-file"
NAME_LIMIT: Final = "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
GALLERY_LIMIT: Final = "1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
MOST_GALLERIES: Final = 100
SHORTEST_SECRET: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GALLERY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SECRET: Final = re.compile(rf"[!-~]{{{SHORTEST_SECRET},512}}")
_TAKEN: Final = (FROM_FILE, "mien", "nobody", "anyone")  # actors of the audit log
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_RANDOM_BYTES: Final = 32


@dataclass(frozen=True)
class Secret:
    """One of a key's secrets. sha256: hexadecimal; until: when it ends, None: it does not."""

    sha256: str
    created: str
    until: str | None = None


@dataclass(frozen=True)
class Key:
    """A key. galleries: the only ones it may touch, None: all; rate, quota: as `10/second` and
    `10000/day`, None: without; revoked: when, and then it has no secrets. Times are ISO 8601, UTC.
    """

    name: str
    scopes: tuple[str, ...]
    galleries: tuple[str, ...] | None = None
    rate: str | None = None
    quota: str | None = None
    created: str = ""
    revoked: str | None = None
    secrets: tuple[Secret, ...] = ()

    def may_enter(self, gallery: str) -> bool:
        """Whether the key is for that gallery, which need not exist."""
        return self.galleries is None or gallery in self.galleries

    def without_past(self, now: str) -> "Key":
        """The key without the secrets that have ended."""
        return replace(
            self, secrets=tuple(s for s in self.secrets if s.until is None or s.until > now)
        )


class Keys:
    """The keys of a file, and of another file with the secret of one more that has every scope."""

    def __init__(self, path: Path, secret_file: Path | None = None) -> None:
        self.path = path
        self._secret_file = secret_file
        self._held: tuple[object, tuple[Key, ...]] = (None, ())  # the files' state, their keys
        self._was_there = False

    def all(self) -> tuple[Key, ...]:
        """Every key, revoked ones too. Raises StorageUnavailable where a file cannot be read, or is
        gone that was there.

        Threads may ask at the same time: keys are never held for those of a state that they are
        not of, or one that was revoked would hold until the next change.
        """
        state = (_state(self.path), self._secret_file and _state(self._secret_file))
        if state[0] is None and self._was_there:
            raise StorageUnavailable(f"{self.path.name} is gone, and no key holds until it is back")
        self._was_there = state[0] is not None
        seen, keys = self._held
        if state != seen:
            keys = (*_read(self.path), *self._from_file())
            self._held = (state, keys)
        return keys

    def holder(self, secret: str) -> Key | None:
        """The key whose secret this is, None where it is nobody's. Raises StorageUnavailable.

        Every secret is compared, each in constant time, so that how long it takes tells nothing.
        """
        shown, now = _digest(secret), _now()
        found = None
        for key in self.all():
            for one in key.secrets:
                same = hmac.compare_digest(shown, one.sha256)
                if same and (one.until is None or one.until > now):
                    found = key
        return found

    def _from_file(self) -> list[Key]:
        if self._secret_file is None:
            return []
        secret = Secret(_digest(read_secret(self._secret_file)), "")
        return [Key(FROM_FILE, SCOPES, secrets=(secret,))]


class KeyRing:
    """Changes of the keys in a file, for who administers it; each is in the audit log first."""

    def __init__(self, path: Path, audit: Audit, actor: str) -> None:
        self._path = path
        self._audit = audit
        self._actor = actor

    def create(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        galleries: Sequence[str] | None = None,
        rate: str | None = None,
        quota: str | None = None,
    ) -> str:
        """The new key's secret, which nobody can tell again. Raises ValueError, AuditUnavailable,
        StorageUnavailable, OSError: nothing was changed then."""
        _require(name, scopes, galleries)
        key = Key(
            name,
            tuple(scope for scope in SCOPES if scope in scopes),
            None if galleries is None else tuple(sorted(set(galleries))),
            None if rate is None else require_rate(rate),
            None if quota is None else require_quota(quota),
            _now(),
        )
        with self._changing() as keys:
            if name in keys:
                was = "was revoked" if keys[name].revoked else "is there"
                raise ValueError(f"a key {name!r} {was} already: take another name")
            text, secret = _new_secret()
            what = {"scopes": key.scopes, "galleries": key.galleries, "rate": rate, "quota": quota}
            self._record("key.create", name, secret=secret.sha256[:8], **what)
            keys[name] = replace(key, secrets=(secret,))
        return text

    def rotate(self, name: str, overlap_s: float = 0.0) -> str:
        """The key's new secret; those before it end after overlap_s. Raises as create does."""
        with self._changing() as keys:
            key = _held(keys, name)
            until = _now(overlap_s)
            before = [
                s if s.until and s.until < until else replace(s, until=until) for s in key.secrets
            ]
            text, secret = _new_secret()
            what = {"secret": secret.sha256[:8], "others_until": until}
            self._record("key.rotate", name, **what)
            keys[name] = replace(key, secrets=(secret, *before)).without_past(_now())
        return text

    def revoke(self, name: str) -> None:
        """Ends the key and all its secrets, now; its name stays used. Raises as create does."""
        with self._changing() as keys:
            key = _held(keys, name)
            self._record("key.revoke", name)
            keys[name] = replace(key, revoked=_now(), secrets=())

    def _record(self, action: str, name: str, **what: Any) -> None:
        self._audit.record(self._actor, action, key=name, **what)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys by their names, written back when the block ends well."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_file = os.open(self._path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(lock_file, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = {key.name: key for key in _read(self._path)}
            yield keys
            _write(self._path, keys.values())


def read_secret(path: Path) -> str:
    """The secret in a file, without the white space about it. Raises StorageUnavailable where it
    cannot be read or is too short to be one."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise StorageUnavailable(f"the key in {path} cannot be read: {error}") from error
    if _SECRET.fullmatch(text) is None:
        raise StorageUnavailable(
            f"the key in {path} must be {SHORTEST_SECRET} to 512 characters without a space, as "
            "`openssl rand -hex 32` makes them"
        )
    return text


def _require(name: str, scopes: Sequence[str], galleries: Sequence[str] | None) -> None:
    if _NAME.fullmatch(name) is None or name in _TAKEN:
        taken = ", ".join(_TAKEN)
        raise ValueError(f"a key's name is {NAME_LIMIT}, not {name[:200]!r} and none of {taken}")
    if not scopes or (unknown := [scope for scope in scopes if scope not in SCOPES]):
        given = repr(unknown[0][:200]) if scopes else "none"
        raise ValueError(f"a key has one or more of the scopes {', '.join(SCOPES)}; {given} given")
    if galleries is None:
        return
    if not 1 <= len(galleries) <= MOST_GALLERIES:
        raise ValueError(f"a key is for 1 to {MOST_GALLERIES} galleries, not {len(galleries)}")
    if "observe" in scopes:
        raise ValueError("observe is of the whole service: it cannot be for single galleries")
    if odd := [gallery for gallery in galleries if _GALLERY.fullmatch(gallery) is None]:
        raise ValueError(f"a gallery's name is {GALLERY_LIMIT}, not {odd[0][:200]!r}")


def _held(keys: dict[str, Key], name: str) -> Key:
    if name not in keys:
        raise ValueError(f"there is no key {name[:200]!r}; there are {', '.join(keys) or 'none'}")
    if keys[name].revoked:
        raise ValueError(f"the key {name!r} was revoked at {keys[name].revoked}")
    return keys[name]


def _new_secret() -> tuple[str, Secret]:
    """A secret of 256 random bits, and what is kept of it."""
    text = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return text, Secret(_digest(text), _now())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _now(later_s: float = 0.0) -> str:
    """The time, as text that sorts as the times do."""
    return (datetime.now(UTC) + timedelta(seconds=later_s)).isoformat(timespec="microseconds")


def _state(path: Path) -> object:
    """What differs when a file was replaced or written to; None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageUnavailable(f"{path.name} cannot be read: {error.strerror}") from error
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size


def _read(path: Path) -> list[Key]:
    """The keys of a file, none where there is no file. Raises StorageUnavailable."""
    try:
        entries = json.loads(path.read_bytes())["keys"]
        return [_key(entry) for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{path.name} cannot be read, and no key holds until it can: {error}"
        raise StorageUnavailable(reason) from error


def _key(entry: dict[str, Any]) -> Key:
    """Raises ValueError, TypeError, KeyError for what no key is written as: a field of another type
    would fail with whoever shows a key."""
    galleries = entry["galleries"]
    key = Key(
        **{
            **entry,
            "scopes": tuple(entry["scopes"]),
            "galleries": None if galleries is None else tuple(galleries),
            "secrets": tuple(Secret(**secret) for secret in entry["secrets"]),
        }
    )
    texts = [key.name, key.created, *key.scopes, *(key.galleries or ())]
    texts += [text for text in (key.rate, key.quota, key.revoked) if text is not None]
    for secret in key.secrets:
        texts += [secret.created, *([] if secret.until is None else [secret.until])]
        if not (isinstance(secret.sha256, str) and _SHA256.fullmatch(secret.sha256)):
            raise ValueError(f"a secret of {key.name!r} is no SHA-256")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"the key {key.name!r} has a field that is no text")
    if key.rate is not None:
        require_rate(key.rate)
    if key.quota is not None:
        require_quota(key.quota)
    return key


def _write(path: Path, keys: Iterable[Key]) -> None:
    """Has the file hold these keys: whole and on the disk, in the place of the one before."""
    descriptor, beside = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"keys": [asdict(key) for key in keys]}, file, indent=1)
            file.flush()
            os.fsync(descriptor)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
