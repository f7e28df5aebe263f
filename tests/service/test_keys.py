"""service/guard/keys.py and `mien keys`: made once, kept as hashes, noticed by who reads them."""

import hmac
import json
import multiprocessing
from pathlib import Path

import pytest

from service.errors import AuditUnavailable, StorageUnavailable
from service.guard.audit import Audit, read_entries
from service.guard.keys import FROM_FILE, SCOPES, KeyRing, Keys
from service.settings import Settings
from tests.service.conftest import Mien


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys.json", Audit(tmp_path / "audit.jsonl"), "test")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


def test_a_key_is_its_holder_s_and_nobody_else_s(ring: KeyRing, keys: Keys) -> None:
    desk = ring.create("desk", ["enrol", "recognise"], galleries=["staff"], rate="3/second")
    gate = ring.create("gate", ["observe"])
    holder = keys.holder(desk)
    assert holder is not None
    assert (holder.name, holder.scopes, holder.rate) == ("desk", ("recognise", "enrol"), "3/second")
    assert (holder.may_enter("staff"), holder.may_enter("guests")) == (True, False)
    other = keys.holder(gate)
    assert other is not None
    assert (other.name, other.may_enter("guests")) == ("gate", True)
    for wrong in ("", desk[:-1], desk + "x", desk.upper(), "mien_", "\udcff"):
        assert keys.holder(wrong) is None


def test_a_secret_has_256_random_bits_and_is_kept_as_a_hash_alone(
    ring: KeyRing, tmp_path: Path
) -> None:
    secrets = {ring.create(f"key-{number}", ["embed"]) for number in range(5)}
    assert len(secrets) == 5
    assert all(secret.startswith("mien_") and len(secret) == 48 for secret in secrets)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        text = path.read_text(encoding="utf-8")
        assert not any(secret in text or secret[5:] in text for secret in secrets)


def test_every_secret_is_compared_whichever_it_is(
    ring: KeyRing, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ring.create("first", ["embed"])
    for name in ("second", "third"):
        ring.create(name, ["embed"])
    compared = []

    def compare(a: str, b: str) -> bool:
        compared.append(b)
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for shown in (first, "mien_wrong"):
        compared.clear()
        keys.holder(shown)
        assert len(compared) == 3


def test_a_rotated_key_has_its_secret_of_before_for_as_long_as_it_was_told(
    ring: KeyRing, keys: Keys
) -> None:
    first = ring.create("desk", ["embed"])
    second = ring.rotate("desk", overlap_s=3600)
    assert keys.holder(first) == keys.holder(second) is not None
    third = ring.rotate("desk")
    assert [keys.holder(one) is not None for one in (first, second, third)] == [False, False, True]
    [key] = keys.all()
    assert len(key.secrets) == 1


def test_an_overlap_ends_by_itself(
    ring: KeyRing, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ring.create("desk", ["embed"])
    second = ring.rotate("desk", overlap_s=60)
    monkeypatch.setattr("service.guard.keys._now", lambda later_s=0.0: "9999-01-01T00:00:00+00:00")
    assert keys.holder(first) is None
    assert keys.holder(second) is not None


def test_a_revoked_key_holds_no_more_and_its_name_stays_used(ring: KeyRing, keys: Keys) -> None:
    secret = ring.create("desk", ["embed"])
    assert keys.holder(secret) is not None
    ring.revoke("desk")
    assert keys.holder(secret) is None
    for change in (lambda: ring.revoke("desk"), lambda: ring.rotate("desk")):
        with pytest.raises(ValueError, match="'desk' was revoked"):
            change()
    with pytest.raises(ValueError, match="'desk' was revoked already"):
        ring.create("desk", ["embed"])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"name": ""}, "a key's name is"),
        ({"name": "-x"}, "a key's name is"),
        ({"name": "x" * 65}, "a key's name is"),
        ({"name": FROM_FILE}, "none of key-file"),
        ({"name": "nobody"}, "none of key-file"),
        ({"name": "anyone"}, "none of key-file"),
        ({"scopes": []}, "one or more of the scopes"),
        ({"scopes": ["embed", "fly"]}, "'fly' given"),
        ({"galleries": []}, "1 to 100 galleries, not 0"),
        ({"galleries": [str(n) for n in range(101)]}, "not 101"),
        ({"galleries": ["a"], "scopes": ["observe"]}, "of the whole service"),
        ({"galleries": ["staff", "a b"]}, "a gallery's name is 1 to 128 of .*, not 'a b'"),
        ({"rate": "often"}, "as 10/second"),
        ({"rate": ""}, "as 10/second"),
        ({"quota": ""}, "as 10/second"),
        ({"rate": "0/second"}, "as 10/second"),
        ({"rate": "1/second;9/day"}, "as 10/second"),
        ({"rate": "10001/hour"}, "at most 10000 a window, not 10001"),
        ({"quota": "-1/day"}, "as 10/second"),
    ],
)
def test_what_makes_no_key_is_refused_with_the_value_and_the_limit(
    ring: KeyRing, keys: Keys, given: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ring.create(**{"name": "desk", "scopes": ["embed"], **given})  # type: ignore[arg-type]
    assert keys.all() == ()


def test_what_cannot_be_recorded_is_not_changed(ring: KeyRing, keys: Keys, tmp_path: Path) -> None:
    secret = ring.create("desk", ["embed"])
    (tmp_path / "audit.jsonl").rename(tmp_path / "kept")
    (tmp_path / "audit.jsonl").symlink_to("/dev/full")
    for change in (
        lambda: ring.create("other", ["embed"]),
        lambda: ring.rotate("desk"),
        lambda: ring.revoke("desk"),
    ):
        with pytest.raises(AuditUnavailable, match="No space left"):
            change()
    assert [key.name for key in keys.all()] == ["desk"]
    assert keys.holder(secret) is not None


def test_a_thread_that_comes_late_with_what_it_read_before_a_change_brings_no_key_back(
    ring: KeyRing, tmp_path: Path
) -> None:
    """Between any two steps of another thread's reading, as if the system had let it wait there."""

    class Interrupted(Keys):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            vars(self).update(vars(self).pop("late", {}))

    keys = Interrupted(tmp_path / "keys.json")
    secret = ring.create("desk", ["embed"])
    assert keys.holder(secret) is not None
    before = dict(vars(keys))
    ring.revoke("desk")
    vars(keys)["late"] = before
    keys.all()
    assert keys.holder(secret) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"keys": [{"name": "x"}]}', b"\xff"])
def test_a_damaged_file_lets_nobody_in_and_is_not_written_over(
    ring: KeyRing, keys: Keys, tmp_path: Path, content: bytes
) -> None:
    secret = ring.create("desk", ["embed"])
    (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(StorageUnavailable, match="no key holds until it can"):
        keys.holder(secret)
    with pytest.raises(StorageUnavailable):
        ring.create("other", ["embed"])
    assert (tmp_path / "keys.json").read_bytes() == content


def make_keys(folder: Path, prefix: str) -> None:
    ring = KeyRing(folder / "keys.json", Audit(folder / "audit.jsonl"), "test")
    for number in range(5):
        ring.create(f"{prefix}-{number}", ["embed"])


def test_keys_that_several_processes_make_at_once_are_all_there(tmp_path: Path, keys: Keys) -> None:
    other = multiprocessing.get_context("spawn").Process(target=make_keys, args=(tmp_path, "there"))
    other.start()
    make_keys(tmp_path, "here")
    other.join()
    assert len({key.name for key in keys.all()}) == 10


def test_the_command_makes_lists_rotates_and_revokes(mien: Mien, settings: Settings) -> None:
    made = mien("keys", "create", "desk", "--scope", "recognise", "--scope", "enrol",
                "--gallery", "staff", "--quota", "9/day")  # fmt: skip
    assert made.exit_code == 0, made.output
    keys = Keys(settings.data / "keys.json")
    assert keys.holder(made.stdout.strip()) is not None
    assert "cannot be shown again" in made.stderr
    assert f"the key of desk in {settings.data}; " in made.stderr
    rotated = json.loads(mien("keys", "rotate", "desk", "--overlap", "1h", "--json").stdout)
    assert keys.holder(rotated["key"]) == keys.holder(made.stdout.strip())
    [told] = json.loads(mien("keys", "list", "--json").stdout)
    assert (told["name"], told["scopes"], told["galleries"], told["quota"]) == (
        *("desk", ["recognise", "enrol"]),
        *(["staff"], "9/day"),
    )
    assert "rotated until" in told["state"]
    assert mien("keys", "revoke", "desk").exit_code == 0
    assert "revoked" in mien("keys", "list").stdout
    assert keys.holder(rotated["key"]) is None
    entries = list(read_entries(settings.data / "audit.jsonl"))
    assert [entry.action for entry in entries] == ["key.create", "key.rotate", "key.revoke"]
    assert all(entry.actor.startswith("cli:") for entry in entries)
    assert entries[0].what["scopes"] == ["recognise", "enrol"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["create", "desk", "--scope", "fly"], "'fly' given"),
        (["rotate", "desk"], "there is no key 'desk'"),
        (["revoke", "desk"], "there is no key 'desk'"),
        (["rotate", "desk", "--overlap", "soon"], "a duration is as 90s"),
        (["rotate", "desk", "--overlap", "36501d"], "36500d at most, not '36501d'"),
    ],
)
def test_the_command_says_what_is_wrong(mien: Mien, words: list[str], reason: str) -> None:
    done = mien("keys", *words)
    assert (done.exit_code, reason in done.stderr) == (2, True)


def test_the_command_reads_and_checks_the_log(mien: Mien, settings: Settings) -> None:
    assert "nothing was recorded" in mien("audit", "verify").stderr
    mien("keys", "create", "desk", "--scope", "embed")
    mien("keys", "revoke", "desk")
    head = mien("audit", "head").stdout.strip()
    assert mien("audit", "verify", "--head", head).exit_code == 0
    shown = mien("audit", "show", "--action", "key.revoke", "--since", "1h", "--json").stdout
    [entry] = map(json.loads, shown.splitlines())
    assert (entry["sequence"], entry["what"]) == (2, {"key": "desk"})
    assert mien("audit", "show", "--since", "2999-01-01").stdout == ""
    assert len(mien("audit", "show", "--since", "2020-01-01T00:00Z").stdout.splitlines()) == 2
    assert mien("audit", "show", "--actor", "nobody").stdout == ""
    assert len(mien("audit", "show", "--since", "2020-01-01t00:00:00z").stdout.splitlines()) == 2
    assert mien("audit", "show", "--since", "lately").exit_code == 2
    assert "36500d at most" in mien("audit", "show", "--since", "999999999d").stderr
    path = settings.data / "audit.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert mien("audit", "verify").exit_code == 0
    cut = mien("audit", "verify", "--head", head)
    assert (cut.exit_code, "it was cut" in cut.stderr) == (1, True)
    path.write_bytes(path.read_bytes().replace(b"embed", b"enrol"))
    edited = mien("audit", "verify")
    assert (edited.exit_code, "line 1: its hash does not hold" in edited.stderr) == (1, True)
    assert json.loads(mien("audit", "verify", "--json").stdout)["flaw"]["line"] == 1
    assert mien("audit", "head").exit_code == 2


def test_the_scopes_are_those_that_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
    for scope in SCOPES:
        assert f"\n| `{scope}` | " in text
