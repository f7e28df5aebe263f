"""InsightFace's verification sets: pairs of crops in a .bin, a pickle that is read as data alone.

The pickle holds a list of 2 P image files and a list of P truths; pair k is the images 2 k and
2 k + 1. A pickle may ask for any function to be called with anything. Here nothing is called: the
unpickler knows the instructions that build bytes, numbers, booleans, lists and tuples, and refuses
every other one and every name. Two exceptions, done here in place of what is named: Python 3 writes
bytes for Python 2 as _codecs.encode(text, "latin1"); numpy writes a truth as its scalar(dtype,
byte), with a dtype of booleans and of nothing else.
"""

import io
import os
import pickle
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.data.pixels import LazyPixels, decode


@dataclass(frozen=True)
class VerificationSet:
    """Pairs of crops of one person or of two.

    pixels_NHWC: uint8 (2 P, height, width, 3) RGB, decoded when asked for. same_P: bool. The ten
    folds of the protocol are ten runs of P / 10 pairs.
    """

    pixels_NHWC: LazyPixels
    same_P: NDArray[np.bool_]


def read_bin(path: Path) -> VerificationSet:
    """The pairs of a .bin, of Python 2's pickle or of 3's.

    Raises FileNotFoundError, and ValueError, with the file, for what is no such pickle or asks for
    more than data (the name it asks for is told), for lists that do not fit each other and, when it
    is asked for, for an image that cannot be decoded or is not as large as the first.
    """
    images, same = _two_lists(path, _unpickled(path))
    if not images or len(images) != 2 * len(same):
        raise ValueError(f"{path} has {len(images)} images for {len(same)} pairs")
    for kinds, items, what in (((bytes,), images, "image"), ((bool, int), same, "truth")):
        wrong = next((i for i, item in enumerate(items) if not isinstance(item, kinds)), None)
        if wrong is not None:
            raise ValueError(f"{path}: {what} {wrong} is {type(items[wrong]).__name__}")
    if not set(same) <= {0, 1}:
        raise ValueError(
            f"{path}: a pair's truth is {(set(same) - {0, 1}).pop()}, not True or False"
        )
    encoded = _Encoded(path, images)
    pixels = LazyPixels(encoded.picture, len(images), encoded.name)
    return VerificationSet(pixels, np.array(same, bool))


def write_bin(path: Path, images: Sequence[bytes], same_P: Sequence[bool]) -> None:
    """Writes a .bin that read_bin and InsightFace read. images: 2 P image files, pair by pair."""
    if len(images) != 2 * len(same_P):
        raise ValueError(f"{len(images)} images are not two for each of {len(same_P)} pairs")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as out:
        pickle.dump((list(images), [bool(same) for same in same_P]), out, protocol=4)
    part.replace(path)


@dataclass(frozen=True)
class _Encoded:
    """Image files in memory, as LazyPixels asks for them."""

    path: Path
    images: list[bytes]

    def picture(self, i: int) -> NDArray[np.uint8]:
        return decode(self.images[i], self.name(i))

    def name(self, i: int) -> str:
        return f"{self.path}: image {i} (pair {i // 2})"


def _two_lists(path: Path, content: Any) -> tuple[list[Any], list[Any]]:
    if isinstance(content, list | tuple) and len(content) == 2:
        images, same = content
        if isinstance(images, list | tuple) and isinstance(same, list | tuple):
            return list(images), list(same)
    raise ValueError(f"{path} is no pair of a list of images and a list of truths")


def _unpickled(path: Path) -> Any:
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError:
        raise
    except _Refused as refused:
        raise ValueError(f"{path} is refused: {refused}") from None
    except Exception as error:  # an unpickler fails in whatever way the bytes lead it into
        raise ValueError(f"{path} is no .bin of a verification set ({error!r:.200})") from error


class _Refused(Exception):
    """The pickle asks for more than data."""


def _latin1(text: str, encoding: str) -> bytes:
    """The bytes that Python 3 wrote as text, for Python 2."""
    if encoding not in ("latin1", b"latin1"):
        raise _Refused(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


class _Booleans:
    """Stands for numpy's dtype of booleans; knows nothing but that."""

    def __init__(self, kind: object, *_: object) -> None:
        if kind not in ("b1", b"b1", "?", b"?"):
            raise _Refused(f"it asks for numpy's dtype {kind!r}, where booleans alone are data")


def _truth(dtype: object, byte: object) -> bool:
    """The truth that numpy wrote as a scalar of booleans: one byte, 0 or 1."""
    if not isinstance(dtype, _Booleans) or byte not in (b"\0", b"\1"):
        raise _Refused(f"it asks for a numpy scalar of {byte!r:.20}, not for a truth")
    return byte == b"\1"


IN_PLACE_OF = {  # what is done where a pickle names one of these
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _Booleans,
    ("numpy.core.multiarray", "scalar"): _truth,
    ("numpy._core.multiarray", "scalar"): _truth,
}


class _KnownInstructions(dict[int, Any]):
    def __missing__(self, code: int) -> Any:
        known = pickletools.code2op.get(chr(code))
        raise _Refused(f"its instruction {known.name if known else hex(code)} is not for data")


class _Unpickler(pickle._Unpickler):  # the one in Python: its table of instructions can be cut down
    dispatch: ClassVar = _KnownInstructions(
        (getattr(pickle, name)[0], pickle._Unpickler.dispatch[getattr(pickle, name)[0]])
        for name in (
            *("PROTO", "FRAME", "STOP", "MARK", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
            *("GET", "BINGET", "LONG_BINGET", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
            *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NEWTRUE", "NEWFALSE"),
            *("INT", "BININT", "BININT1", "BININT2", "STRING", "BINSTRING", "SHORT_BINSTRING"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
            # For _latin1, and so that a refusal tells the name.
            *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "REDUCE"),
            *("GLOBAL", "STACK_GLOBAL", "INST"),
        )
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in IN_PLACE_OF:
            return IN_PLACE_OF[module, name]
        raise _Refused(f"it asks for {module}.{name}")

    def _none(self) -> None:
        """NONE, which the state of a dtype holds and nothing else of a set."""
        waiting = (item for items in (*self.metastack, self.stack) for item in items)
        if not any(isinstance(item, _Booleans) for item in waiting):
            raise _Refused("its instruction NONE is not for data")
        self.append(None)

    def _state(self) -> None:
        """BUILD, of a dtype's byte order: a boolean has none, so that it is left out."""
        self.stack.pop()
        if not self.stack or not isinstance(self.stack[-1], _Booleans):
            raise _Refused("its instruction BUILD is not for data")

    dispatch[pickle.NONE[0]] = _none
    dispatch[pickle.BUILD[0]] = _state
