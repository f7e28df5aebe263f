"""The gallery: people and faces, kept on disk and searched exactly. `open_gallery` is the door.

contract.py says what it does and store.py does it, a method a verb. What the others know:

    boundary                    what may enter
    enrolling                   what an enrolment writes
    deleting, erasing           what goes with the transaction, and what is wiped after it
    keeping                     how long people are kept; who is sealed
    galleries, people, answers  the rows, within a transaction of sqlite (schema, turns)
    slots, safe, sealed         where what tells of a person lies, and how it is sealed there
    datakeys, vault             the data keys, and how their file keeps in step with the gallery's
    changelog, live, index      what changed, and the search in memory that follows it
    copies                      copies of the file
"""

from pathlib import Path

from service.errors import GalleryMissing, StorageUnavailable
from service.gallery.contract import Galleries
from service.gallery.sealed import MasterKeys

FILE_NAME = "gallery.sqlite3"
DATA_KEYS_FILE_NAME = "data-keys.sqlite3"


def open_gallery(
    folder: Path,
    *,
    search_threads: int = 1,
    patience_s: float = 5.0,
    masters: MasterKeys | None = None,
    new: bool = False,
) -> Galleries:
    """The galleries kept in `folder`, which is made if it is not there.

    Several processes may open the same folder, which lies on a disk of this machine: SQLite's
    write-ahead log does not work over a network. search_threads: OpenMP threads of one search.
    patience_s: how long a call waits for another's lock. masters: the template keys by their ids,
    the newest first, as they are when they are asked for; with them all that tells of a person is
    sealed, who lies there unsealed too, before this returns. new: begin an empty gallery even
    where another was lost. Raises GalleryMissing, StorageFull, StorageUnavailable,
    TemplateKeysRefused.
    """
    from service.gallery.store import Store  # here: who only names things needs no index

    if not new and (beside := lost_beside(folder)):
        raise GalleryMissing(str(folder / FILE_NAME), beside)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(f"{folder}: {error.strerror}") from error
    return Store(
        folder / FILE_NAME,
        search_threads=search_threads,
        patience_s=patience_s,
        masters=masters,
    )


def lost_beside(folder: Path) -> str | None:
    """What shows that the folder had a gallery, where its file is missing or empty; None else.

    SQLite would make a new file, and throw the write-ahead log of the one before away.
    """
    # The file is looked at last: who makes a new one makes what lies beside it afterwards.
    beside = [n for n in (f"{FILE_NAME}-wal", DATA_KEYS_FILE_NAME) if (folder / n).exists()]
    return beside[0] if beside and not has_gallery(folder) else None


def has_gallery(folder: Path) -> bool:
    """True if the gallery's file is there and not empty."""
    try:
        return (folder / FILE_NAME).stat().st_size > 0
    except OSError:
        return False
