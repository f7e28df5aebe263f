"""Pictures that are decoded when they are asked for: sets too large to be held, used like arrays.

What reads from disk here may be used from threads, after a fork and in spawned processes.
"""

import operator
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


class LazyPixels:
    """uint8 (N, height, width, 3) RGB, or (N, height, width) grey, decoded at each access.

    pixels[i] is one picture; pixels[a:b], pixels[places] and pixels[mask] are arrays of several.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        picture: Callable[[int], NDArray[np.uint8]],
        count: int,
        name: Callable[[int], str] = str,
    ) -> None:
        """picture: the picture at a place in [0, count), count > 0. name: what errors call it.

        All are as large as the first, which is decoded at once; a picture of another size is a
        ValueError when it is asked for.
        """
        self._picture, self._name = picture, name
        self.shape: tuple[int, ...] = (count, *picture(0).shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        if isinstance(index, slice):
            return self._several(range(len(self))[index])
        if np.ndim(index):
            places = np.asarray(index)
            return self._several(np.flatnonzero(places) if places.dtype == bool else places)
        place = range(len(self))[operator.index(index)]
        picture = self._picture(place)
        if picture.shape != self.shape[1:]:
            raise ValueError(
                f"{self._name(place)} is {picture.shape}, the first was {self.shape[1:]}"
            )
        return picture

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.uint8, copy=False)

    def _several(self, places: Sequence[int] | NDArray[Any]) -> NDArray[np.uint8]:
        pictures = np.empty((len(places), *self.shape[1:]), np.uint8)
        for out, place in zip(pictures, places, strict=True):
            out[...] = self[place]
        return pictures


Pixels = NDArray[np.uint8] | LazyPixels


def chosen(pixels: Pixels, places: NDArray[np.int64]) -> Pixels:
    """The pictures at some places, in their order; what is decoded when asked for stays so."""
    if isinstance(pixels, np.ndarray):
        return pixels[places]
    return LazyPixels(partial(_picture_at, pixels, places), len(places))


def _picture_at(pixels: LazyPixels, places: NDArray[np.int64], i: int) -> NDArray[np.uint8]:
    return pixels[places[i]]


def decode(data: bytes | NDArray[np.uint8], name: str, *, grey: bool = False) -> NDArray[np.uint8]:
    """An image file's pixels, uint8 (height, width, 3) RGB or (height, width).

    Raises ValueError, with its name, for what is no image. OpenCV also reads a JPEG that is cut
    off: its lower part is grey then.
    """
    buffer = np.frombuffer(data, np.uint8)
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    decoded = cv2.imdecode(buffer, flags) if len(buffer) else None
    if decoded is None:
        raise ValueError(f"{name} is not an image")
    return decoded if grey else np.ascontiguousarray(decoded[:, :, ::-1])


class Files:
    """Files by their names, in a folder or in a zip."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._packed: tuple[int, zipfile.ZipFile] | None = None

    def names(self) -> list[str]:
        """The names of all files, in alphabetical order, with / between folders."""
        if self.place.suffix == ".zip":
            return sorted(n for n in self._zip().namelist() if not n.endswith("/"))
        return sorted(p.relative_to(self.place).as_posix() for p in _files_below(self.place))

    def read(self, name: str) -> bytes:
        """Raises ValueError for a file that is not there, and for a zip that is damaged."""
        try:
            if self.place.suffix == ".zip":
                return self._zip().read(name)
            return (self.place / name).read_bytes()
        except (KeyError, FileNotFoundError):
            raise ValueError(f"{self.place} has no {name}") from None
        except (zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.place}: {name} is damaged: {error}") from error

    def _zip(self) -> zipfile.ZipFile:
        """The open zip; a process that was forked off opens it anew: the place in it is shared."""
        if self._packed is None or self._packed[0] != os.getpid():
            try:
                self._packed = os.getpid(), zipfile.ZipFile(self.place)
            except zipfile.BadZipFile as error:
                raise ValueError(f"{self.place} is no zip that can be read: {error}") from error
        return self._packed[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "_packed": None}


def _files_below(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(where, name)).is_file())
