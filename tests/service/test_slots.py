"""service/gallery/slots.py: contents come and go, and no slot ever changes its size or place."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.gallery import slots
from service.gallery.sqlite import SqliteFile, Transaction


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Transaction]:
    file = SqliteFile(tmp_path / "gallery.sqlite3", patience_s=0.2)
    with file.write() as transaction:
        yield transaction
    file.close()


def contents(db: Transaction) -> dict[int, bytes]:
    return dict(db.execute("SELECT slot, content FROM slots"))


@pytest.mark.parametrize(("length", "size"), [(0, 256), (256, 256), (257, 512), (2048, 2048)])
def test_a_content_is_padded_with_zeros_to_a_power_of_two(
    db: Transaction, length: int, size: int
) -> None:
    slot = slots.fill(db, b"x" * length)
    assert contents(db) == {slot: b"x" * length + b"\0" * (size - length)}


def test_an_erased_slot_is_zeros_and_goes_to_the_next_content_of_its_size(db: Transaction) -> None:
    small, large = slots.fill(db, b"a"), slots.fill(db, b"b" * 300)
    slots.erase(db, "SELECT slot FROM slots WHERE slot <= ?", large)
    assert contents(db) == {small: bytes(256), large: bytes(512)}
    assert slots.fill(db, b"c" * 400) == large
    assert slots.fill(db, b"d" * 400) not in {small, large}
    assert slots.fill(db, b"e") == small
    assert not db.execute("SELECT * FROM free_slots").fetchall()


def test_a_new_content_of_the_same_size_stays_in_its_slot(db: Transaction) -> None:
    slot = slots.fill(db, b"long before")
    assert slots.refill(db, slot, b"after") == slot
    assert contents(db) == {slot: b"after".ljust(256, b"\0")}


def test_a_new_content_of_another_size_moves_and_leaves_zeros(db: Transaction) -> None:
    slot = slots.fill(db, b"before")
    other = slots.refill(db, slot, b"x" * 257)
    assert contents(db) == {slot: bytes(256), other: (b"x" * 257).ljust(512, b"\0")}
    assert db.execute("SELECT size, slot FROM free_slots").fetchall() == [(256, slot)]
