"""The vault: whose data keys the store may use, and what keeps its two files in step.

What a crash left between them is put right when the vault is opened, see datakeys.py, and who lies
in the gallery's file unsealed is sealed then: in the place where they lie, some in a transaction,
so that it goes on where it was when it is broken off.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Final

from service.errors import StorageFull, StorageUnavailable, TemplateKeysRefused
from service.gallery import deleting, keeping
from service.gallery.datakeys import DataKeys
from service.gallery.sqlite import SqliteFile, Transaction

SEALED_AT_ONCE: Final = 200


def open_vault(file: SqliteFile, keys: DataKeys | None) -> "Vault":
    """The vault of a gallery's file, both files in step, everybody sealed. keys: None to seal none.

    Raises TemplateKeysRefused where somebody is sealed whose key is not there; then `keys` are
    closed.
    """
    vault = Vault(file, keys)
    try:
        if keys is None:
            _require_nobody_sealed(file)
        else:
            vault.settle()
            vault.erase_again()
            vault.erase_due()
            vault.seal_all()
    except BaseException:
        if keys is not None:
            keys.close()
        raise
    return vault


class Vault:
    """The data keys of a store's people."""

    def __init__(self, file: SqliteFile, keys: DataKeys | None) -> None:
        self._file = file
        self._keys = keys
        self._made = False

    def keys_of(self, ids: Iterable[bytes | None]) -> Mapping[bytes | None, bytes | None]:
        """The data keys of these ids, as DataKeys.of; without master keys nobody may have one."""
        if self._keys is not None:
            return self._keys.of(ids)
        if any(key_id is not None for key_id in ids):
            raise StorageUnavailable("it was sealed since; start again with MIEN_TEMPLATE_KEY_FILE")
        return {None: None}

    def new_key(self, db: Transaction) -> tuple[bytes, bytes] | None:
        """A data key with its id, on disk before its person is; None where nobody is sealed.

        One a transaction.
        """
        return None if self._keys is None else self._make(db, self._keys, 1)[0]

    def erase_due(self) -> bool:
        """Erases the data keys of who is deleted; whether there are data keys at all.

        Raises ErasureIncomplete, Storage*.
        """
        if self._keys is None:
            return False
        with self._file.write() as db:
            due = keeping.data_keys_due(db)
            if due:
                self._keys.erase(due)
                keeping.data_keys_done(db, due)
        return True

    def settle(self) -> None:
        """Erases the data keys whose persons never came."""
        assert self._keys is not None
        with self._file.write() as db:
            self._keys.settle(stands=lambda key_id: keeping.stands(db, key_id))
        self._made = False

    def erase_again(self) -> None:
        """Deletes persons whose data keys are erased: an older copy of the file was brought back.

        Raises TemplateKeysRefused for persons whose keys were never in the file of data keys.
        """
        assert self._keys is not None
        with self._file.write() as db:
            of_persons = keeping.data_keys(db)
            there, erased = self._keys.known()
            if lost := of_persons.keys() - there - erased:
                raise TemplateKeysRefused(
                    f"the data keys of {len(lost)} persons are missing: data-keys.sqlite3 is gone,"
                    " or older than gallery.sqlite3; bring back the one that belongs to it"
                )
            for key_id in of_persons.keys() & erased:
                gallery, number = of_persons[key_id]
                deleting.delete_person(db, gallery, number)

    def seal_all(self) -> None:
        """Seals who is not sealed, and wipes what was to be read of them."""
        assert self._keys is not None
        sealed = False
        while True:
            with self._file.write() as db:
                some = keeping.unsealed(db, SEALED_AT_ONCE)
                if not some:
                    break
                made = self._make(db, self._keys, len(some))
                for number, data_key in zip(some, made, strict=True):
                    keeping.seal_person(db, number, data_key)
                sealed = True
        if sealed:
            self.settle()
            self._file.wipe()

    def check(self) -> list[str]:
        """Why the data keys cannot be used now, a sentence each."""
        return [] if self._keys is None else self._keys.check()

    def close(self) -> None:
        """Closes the file of data keys."""
        if self._keys is None:
            return
        if self._made:  # so that an older copy, brought back by mistake, costs nobody their key
            with contextlib.suppress(StorageFull, StorageUnavailable):
                self.settle()
        self._keys.close()

    def _make(self, db: Transaction, keys: DataKeys, count: int) -> list[tuple[bytes, bytes]]:
        self._made = True
        return keys.make(count, stands=lambda key_id: keeping.stands(db, key_id))


def _require_nobody_sealed(file: SqliteFile) -> None:
    """Raises TemplateKeysRefused where somebody is; a file that cannot be read, check tells of."""
    with contextlib.suppress(StorageUnavailable), file.read() as db:
        if sealed := len(keeping.data_keys(db)):
            reason = f"{sealed} persons are sealed, and MIEN_TEMPLATE_KEY_FILE names no file"
            raise TemplateKeysRefused(reason)
