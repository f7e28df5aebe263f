"""The pages: links and anchors lead somewhere, each page is in the index, and whatever a page names
(a command, an option, a call, a setting, a metric, a target, a module) is there.

test_docs.py and test_dashboards.py ask the other way round: whether what is there is told of.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from service.cli import app as mien
from service.gallery.contract import BASES
from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/results/*.md", "service/models/*/CARD.md")
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# What a client shows and whom it asks, what a test asks for, what docker-compose.yml is told.
NO_SETTINGS = {PREFIX + name for name in ("KEY", "URL", "PICTURES", "PUBLISH")}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def targets_of(page: Path) -> list[str]:
    """What a page links to within the repository, examples of code left out."""
    plain = SPAN.sub("", FENCE.sub("", text_of(page)))
    return [one for one in LINK.findall(plain) if not re.match(r"[a-z]+:", one)]


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", head.lower()).strip() for head in heads)
    return frozenset(re.sub(r"\s", "-", head) for head in plain)


def code_of(page: Path) -> Iterator[str]:
    """The lines of shell and the spans of code of a page; lines that go on are one."""
    text = text_of(page)
    for language, block in FENCE.findall(text):
        if language in ("sh", ""):
            yield from block.replace("\\\n", " ").splitlines()
    yield from SPAN.findall(FENCE.sub("", text))


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=ids)


@every_page
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for target in targets_of(page):
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors_of(place), target


def test_every_page_is_in_the_index_once() -> None:
    index = DOCS / "README.md"
    listed = [(DOCS / target).resolve() for target in targets_of(index)]
    pages = [page for page in DOCS.rglob("*.md") if page != index]
    assert sorted(page for page in listed if page.is_relative_to(DOCS)) == sorted(pages)


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/README.md" in targets_of(ROOT / "README.md")


def test_every_picture_of_the_docs_is_shown() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for target in targets_of(page)}
    for picture in (DOCS / "pictures").rglob("*.*"):
        assert picture in shown, picture


@cache
def commands() -> dict[str, TyperCommand]:
    """The commands of `mien` by their words: "serve", "keys create"."""
    found: dict[str, TyperCommand] = {}

    def walk(group: TyperGroup, words: str) -> None:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                walk(command, f"{words}{name} ")
            elif isinstance(command, TyperCommand):
                found[words + name] = command

    top = get_command(mien)
    assert isinstance(top, TyperGroup)
    walk(top, "")
    return found


def test_every_command_is_documented_and_nothing_else_is() -> None:
    rows = re.findall(r"^\| `mien ([a-z -]+)` \|", text_of(DOCS / "commands.md"), re.MULTILINE)
    assert sorted(rows) == sorted(commands())


@every_page
def test_the_commands_that_a_page_names_are_there_with_their_options(page: Path) -> None:
    for line in code_of(page):
        if (
            asked := re.search(r"(?:^|[|&;(] *|exec mien )mien ([a-z][a-z-]*)( .*)?$", line)
        ) is None:
            continue
        words = shlex.split(f"{asked[1]}{asked[2] or ''}", comments=True)
        name = max((n for n in commands() if words[: len(n.split())] == n.split()), default="")
        groups = {one.split(" ")[0] for one in commands() if " " in one}
        assert name or (words[0] in groups and len(words) == 1), line
        known = {option for one in commands()[name].params for option in one.opts} if name else ()
        options = [word.split("=")[0] for word in words if word.startswith("--") and word != "--"]
        assert set(options) <= {*known, "--help"}, line


@every_page
def test_the_settings_that_a_page_names_are_there(page: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", text_of(page)))
    assert named <= {PREFIX + name.upper() for name in Settings.model_fields} | NO_SETTINGS


@every_page
def test_the_metrics_that_a_page_names_are_there(page: Path) -> None:
    told = set(re.findall(r"^\| `((?:mien|process)_\w+)`", text_of(DOCS / "metrics.md"), re.M))
    for name in re.findall(r"`((?:mien|process)_[a-z0-9_]*[a-z0-9])[`{\[]", text_of(page)):
        assert {name, re.sub(r"_(bucket|sum|count)$", "", name)} & told, name


@every_page
def test_the_calls_that_a_page_names_are_there(page: Path) -> None:
    told = re.findall(r"^\| `([A-Z]+) (/[^`]*)` \|", text_of(DOCS / "api.md"), re.MULTILINE)
    told.append(("GET", "/openapi.json"))
    calls = [(method, re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))) for method, path in told]
    for span in SPAN.findall(FENCE.sub("", text_of(page))):
        if asked := re.fullmatch(r"(GET|POST|PATCH|PUT|DELETE) (/[^\s?]*)(\?.*)?", span):
            method, path = asked[1], asked[2]
            assert any(m == method and re.fullmatch(p, path) for m, p in calls), span


@every_page
def test_the_modules_and_targets_that_a_page_names_are_there(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for line in code_of(page):
        for module in re.findall(
            r"python3? -m ((?:benchmarks|training|export|service)[\w.]*)", line
        ):
            place = ROOT / module.replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), line
        if asked := re.match(r"make ([a-z-]+)", line.strip()):
            assert asked[1] in targets, line


def test_every_target_is_told_of() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", text_of(ROOT / "Makefile"), re.MULTILINE)
    assert phony is not None
    told = text_of(ROOT / "CONTRIBUTING.md")
    for target in phony[1].split():
        assert re.search(rf"\bmake {target}\b(?!-)", told), target


def test_no_text_names_a_place_on_somebodys_machine() -> None:
    elsewhere = re.compile(r"(?<![\w.}])/(?:work|root|Users)/\w|/home/(?!mien\b)\w")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path != Path(__file__):
            found = elsewhere.search(path.read_bytes().decode("utf-8", "replace"))
            assert found is None, f"{name}: {found and found[0]}"


def test_what_allows_to_keep_a_face_is_told_as_it_is() -> None:
    [told] = re.findall(r"`basis` is one of(.+?)\n\n", text_of(DOCS / "privacy.md"), re.DOTALL)
    assert tuple(sorted(set(SPAN.findall(told)) & set(BASES))) == tuple(sorted(BASES))


def test_every_part_of_the_service_has_its_place_in_the_architecture() -> None:
    told = text_of(DOCS / "architecture.md")
    for path in (ROOT / "service").iterdir():
        if path.suffix == ".py" or path.is_dir():
            name = path.name + "/" * path.is_dir()
            known = path.name.startswith("__") or f"{name}`" in told
            assert known, f"docs/architecture.md does not say what {name} does"
