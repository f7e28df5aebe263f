"""The layout of a folder of people: a folder per person, and in it that person's photographs.

`mien enroll`, `mien calibrate` and `python -m training` read such folders. What they skip and what
they refuse is decided here, so that all of them take the same files. Paths are relative to the
folder of people, with /.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

PHOTOGRAPH_SUFFIXES: Final = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    *(".png", ".tif", ".tiff", ".webp"),
)

# Folders that systems make among a user's own, in lower case; * and ? as in a shell.
_SYSTEM_FOLDERS: Final = (
    *("#recycle", "#snapshot", "@eadir", "@sharebin", "@tmp"),  # Synology DSM
    *("@recycle", "@recently-snapshot", ".@__thumb", ".@upload_cache"),  # QNAP QTS
    *("~snapshot", ".snapshot", ".zfs"),  # NetApp and ZFS
    *("$recycle.bin", "recycler", "system volume information", "found.[0-9][0-9][0-9]"),  # Windows
    *("lost+found", ".trash*", ".thumbnails"),  # Linux, and macOS's .Trash and .Trashes
    *("__macosx", ".appledouble", "network trash folder", "temporary items"),  # macOS
    *(".spotlight-v100", ".fseventsd", "ipod photo cache"),
    *(".picasaoriginals", ".wdmc", ".wd_tv"),  # Picasa, Western Digital
)
# Files that they make, most of them thumbnails: a person's photographs a second time.
_SYSTEM_FILES: Final = (
    *("synophoto_thumb_*", "synofile_thumb_*", "synoindex_media_info", "synovideo_*"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "zbthumbnail.info"),
)
_NAMED: Final = 3  # of the folders that are found where photographs are expected


def system_reason(path: str) -> str | None:
    """Why a file is a system's and not a person's, naming the folder or file; None if it is not."""
    parts = path.encode("utf-8", "replace").decode().split("/")  # to be printed, whatever its bytes
    for part in parts:  # the last too: of a folder that cannot be read only its own path is seen
        if _is_one_of(part, _SYSTEM_FOLDERS):
            return f"system folder {part}"
    return f"system file {parts[-1]}" if _is_one_of(parts[-1], _SYSTEM_FILES) else None


def require_folder_per_person(folder: Path, files: Iterable[str]) -> None:
    """Raise ValueError if a person's folder seems to be a folder of people.

    files: the files below folder that are to be read. A person's photographs may lie in albums:
    folders of the person's folder, at any depth. Several albums beside fewer photographs of the
    person's folder itself are most likely people, all of whom would become one person. So is a
    single one where no person's folder holds a photograph itself.
    """
    photographs: dict[str, int] = {}
    inner: dict[str, set[str]] = {}
    for file in files:
        person, *below = PurePosixPath(file).parts
        if len(below) > 1:
            inner.setdefault(person, set()).add(below[0])
        elif below and PurePosixPath(file).suffix.lower() in PHOTOGRAPH_SUFFIXES:
            photographs[person] = photographs.get(person, 0) + 1
    for person, folders in sorted(inner.items()):
        fewer = photographs.get(person, 0) < len(folders)
        if fewer and (len(folders) > 1 or not photographs):
            raise ValueError(_too_high(folder / person, sorted(folders)))


def _too_high(person: Path, folders: list[str]) -> str:
    more = ", ..." if len(folders) > _NAMED else ""
    return (
        f"{person} holds folders of its own ({', '.join(folders[:_NAMED])}{more}), where "
        f"photographs of one person are expected: give {person} if those are people; if they are "
        f"albums of one person, move the photographs into {person}"
    )


def _is_one_of(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)
