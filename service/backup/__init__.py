"""Backups: MIEN_DATA as it is at one moment, taken while a server serves, and brought back.

A backup is a folder, or a .tar of one:

    manifest.json          what it holds; size and SHA-256 of every other file
    gallery.sqlite3        a copy of one committed state
    calibrations/*.json, keys.json, audit.jsonl        where there are any

It appears under its name once it is whole, looked through and on disk, so that one that was cut off
is never taken for one. The data keys of sealed persons are not in it: they are copied to a place of
their own or not at all, for erasing a key is to erase its person from every backup.

Bringing one back leaves what must not go back in time where it is: an audit log, keys (one may have
been revoked since) and data keys (persons may have been erased since) that are there already.
"""

import re
from typing import Final

from service.gallery import FILE_NAME

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
CALIBRATIONS: Final = "calibrations"
KEYS: Final = "keys.json"
KEYS_LOCK: Final = "keys.lock"  # empty
AUDIT: Final = "audit.jsonl"
NOBODYS: Final = "lost+found"  # a disk's own
# The files that a backup may have, by their paths in it.
FILE: Final = re.compile(
    rf"{re.escape(FILE_NAME)}|{KEYS}|{AUDIT}|{CALIBRATIONS}/[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}\.json"
)
