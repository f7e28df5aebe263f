"""The process's memory: how it is given back, and how one sees that there was not enough of it.

What a photograph took is to be gone with it.
glibc keeps a heap a thread and, after the first large block that was freed, puts blocks of up to
32 MiB on these heaps, where one small survivor holds all below it. A service of many threads and
many sizes of photographs then grows to the sum of the largest of each thread. With two heaps, and
large blocks mapped and unmapped one by one (mallopt(3)), a server that was sent photographs of 71
kinds had 249 MiB resident after 100 of them and 255 after 1,000, where it had 329 and 355 before,
at about 2 % more time.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.errors import OutOfMemory

_OPTIONS: Final = {
    -8: 2,  # M_ARENA_MAX: heaps
    -3: 1 << 20,  # M_MMAP_THRESHOLD: bytes from which a block is mapped; no longer adapted
    -1: 8 << 20,  # M_TRIM_THRESHOLD: free bytes at a heap's top that are given back
}


def give_memory_back() -> bool:
    """Sets the C library's allocator so, for this process; False where it is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(*option) == 1 for option in _OPTIONS.items())


# What libraries say that have no MemoryError of their own: Pillow's decoders, libtiff, ONNX
# Runtime, C++ (std::bad_alloc), Python where no thread can be begun. libheif's own limits are told
# as "Memory allocation error: Security limit": those are the file's fault.
_SAID: Final = (
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "failed to allocate memory",
    "cannot allocate memory",
    "can't start new thread",
)
_OPENCV_NO_MEMORY: Final = -4  # cv::Error::StsNoMem


def lacks_memory(error: BaseException) -> bool:
    """True if an error says that the machine had no memory, be it a library's own kind."""
    if isinstance(error, MemoryError):
        return True
    if type(error).__module__ == "cv2" and getattr(error, "code", None) == _OPENCV_NO_MEMORY:
        return True
    said = str(error).lower()
    return any(words in said for words in _SAID)


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Raises OutOfMemory in the place of an error that says so, without what it held."""
    try:
        yield
    except Exception as error:
        if not lacks_memory(error):
            raise
        raise OutOfMemory from None
