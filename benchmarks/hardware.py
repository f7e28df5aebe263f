"""What a benchmark's figures hang on: processor, cores, load, versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def hardware(*packages: str) -> dict[str, str]:
    """The facts by name; packages: distributions whose versions matter to the figures."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "cpu": next(line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        "cores": str(len(os.sched_getaffinity(0))),
        "load at start": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def as_line(facts: dict[str, str]) -> str:
    """The facts in one line of text."""
    return "; ".join(f"{name} {fact}" for name, fact in facts.items())
