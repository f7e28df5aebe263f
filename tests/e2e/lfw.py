"""Photographs of LFW, from the shared data, as files."""

from pathlib import Path
from zipfile import ZipFile

from tests.shared import SHARED

PHOTOS = SHARED / "data" / "lfw" / "photos.zip"


def lay_out(folder: Path, files: dict[str, str]) -> Path:
    """The folder with LFW's photographs ("Kofi_Annan 8") under names of our own."""
    with ZipFile(PHOTOS) as photos:
        for name, photograph in files.items():
            who, number = photograph.split()
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photos.read(f"{who}/{who}_{int(number):04}.jpg"))
    return folder
