"""Whether artefacts are what they say: python -m export.check FOLDER...

Of each folder: hash, graph contract, golden output and rows as the service checks them at start;
bytes and opset of every graph; the card, which must be what the manifest gives, word for word.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from export.card import PICTURE, card
from service.errors import ArtefactError
from service.inference.artefact import load_artefact


def faults(folder: Path) -> list[str]:
    """What is wrong with an artefact, a line each; empty where nothing is."""
    try:
        load_artefact(folder)
    except ArtefactError as error:
        return [error.reason]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return [*_of_graphs(folder, manifest), *_of_card(folder, manifest)]


def _of_graphs(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    graphs = manifest.get("graphs", {"model": manifest})
    for part, entry in graphs.items():
        path = folder / f"{part}.onnx"
        size, opset = path.stat().st_size, _opset(path)
        for name, said, found in (
            ("bytes", entry.get("bytes"), size),
            ("opset", manifest.get("opset"), opset),
        ):
            if said != found:
                yield f"{path.name}: the manifest says {name} {said}, it has {found}"


def _opset(path: Path) -> int:
    imported = onnx.load(path, load_external_data=False).opset_import
    return next(int(entry.version) for entry in imported if entry.domain in ("", "ai.onnx"))


def _of_card(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    page = folder / "CARD.md"
    if not page.exists():
        yield "CARD.md is not there"
        return
    kept = page.read_text(encoding="utf-8")
    made = card(manifest, picture=f"]({PICTURE})" in kept)
    if kept != made:
        lines = zip(kept.splitlines(), made.splitlines(), strict=False)
        number = next((n for n, (a, b) in enumerate(lines, 1) if a != b), "the last")
        yield f"CARD.md is not the manifest's: they part at line {number}"
    for name in re.findall(r"^!\[.*\]\((.*)\)$", made, re.MULTILINE):
        if not (folder / name).exists():
            yield f"{name}, which CARD.md shows, is not there"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    found = {folder: faults(folder) for folder in parser.parse_args().folders}
    for folder, wrong in found.items():
        print(f"{folder}: {'; '.join(wrong) or 'as it says'}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
