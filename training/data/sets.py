"""One door to every form that a set of people's crops comes in."""

from pathlib import Path

from training.data.crops import Crops, read_crops, read_folder
from training.data.recordio import read_rec


def read_set(path: Path, cache: Path) -> Crops:
    """The crops of a .rec, of a csv beside a zip or folder (either may be named), or of a folder
    with a folder a person.

    cache: a folder for what is decoded once. Raises FileNotFoundError, and ValueError with the file
    for what is wrong inside; read_rec, read_crops and read_folder say more.
    """
    if path.suffix == ".rec":
        return read_rec(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    stem = path.stem if path.suffix in (".csv", ".zip") else path.name
    listing = path.with_name(f"{stem}.csv")
    if listing.exists():
        return read_crops(listing, cache)
    if path.is_dir():
        return read_folder(path, cache)
    raise ValueError(
        f"{path} is no set of crops: a .rec, a csv beside a zip or folder, or a folder with a "
        "folder a person"
    )
