"""service/memory.py: freed memory goes back to the system."""

import ctypes
import subprocess
import sys

import pytest

# A thread of its own frees large blocks beneath a small one that stays.
PROGRAM = """
import sys, threading
from service.memory import give_memory_back
def resident_mib():
    status = open("/proc/self/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
if sys.argv[1] == "yes":
    assert give_memory_back()
kept = []
def work():
    b"x" * (30 << 20)  # raises glibc's own threshold once it is freed
    for _ in range(8):
        blocks = [bytes([1]) * (3 << 20) for _ in range(20)]
        kept.append(bytes([1]) * 5000)
        del blocks
before = resident_mib()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident_mib() - before)
"""


def grown_mib(given_back: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, given_back], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's allocator is meant")
def test_what_was_freed_is_not_resident_any_more() -> None:
    assert grown_mib("yes") < 8
    assert grown_mib("no") > 20
