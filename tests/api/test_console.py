"""The console's files: how they are served, and that they keep what the policy asks of them."""

import re

import pytest
from starlette.testclient import TestClient

from service.api.console import FILES, FOLDER, PAGE, POLICY
from tests.api.wire import slug

SCRIPTS = [name for name in FILES if name.endswith(".js")]


def text(name: str) -> str:
    return FILES[name].content.decode("utf-8")


def test_every_file_of_the_folder_is_served() -> None:
    assert set(FILES) == {path.name for path in FOLDER.iterdir()}
    assert PAGE in FILES


@pytest.mark.parametrize(
    "path", ["/", "/console/main.js", "/console/base.css", "/console/icon.svg"]
)
def test_a_file_comes_with_the_policy_and_is_asked_for_once(client: TestClient, path: str) -> None:
    answer = client.get(path)
    name = path.rsplit("/", 1)[1] or PAGE
    assert answer.content == FILES[name].content
    assert answer.headers["content-type"] == FILES[name].kind
    kept = client.get(path, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert (kept.status_code, kept.content) == (304, b"")
    for one in (answer, kept):
        assert one.headers["content-security-policy"] == POLICY
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["cache-control"] == "no-cache"
        assert one.headers["etag"] == FILES[name].etag
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.head(path).headers["etag"] == FILES[name].etag


def test_the_policy_allows_no_other_host_and_nothing_inline() -> None:
    sources = {part.split()[0]: part.split()[1:] for part in POLICY.split("; ")}
    assert sources["default-src"] == ["'none'"]
    assert sources["script-src"] == sources["style-src"] == sources["connect-src"] == ["'self'"]
    assert {source for allowed in sources.values() for source in allowed} <= {
        "'none'",
        "'self'",
        "blob:",
        "data:",
    }


@pytest.mark.parametrize(
    "path", ["/console/none.js", "/console/..%2Fapp.py", "/console/%2e%2e/app.py", "/console/"]
)
def test_what_is_no_file_of_the_console_is_not_found(client: TestClient, path: str) -> None:
    assert slug(client.get(path)) == "path-unknown"


def test_the_console_is_only_read(client: TestClient) -> None:
    assert slug(client.post("/")) == "method-not-allowed"


def test_the_page_names_only_its_own_files_and_holds_no_script_or_style() -> None:
    page = text(PAGE)
    named = set(re.findall(r"(?:src|href)=\"(?!#)([^\"]*)\"", page))
    assert named == {f"/console/{n}" for n in ("icon.svg", "base.css", "views.css", "main.js")} | {
        "/docs"
    }
    assert not re.search(r"(?i)<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", page)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_module_makes_no_markup_out_of_text_and_leaves_asking_to_one(name: str) -> None:
    module = text(name)
    markup = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.style\b"
    )
    assert not re.search(markup, module)
    assert ("fetch(" in module) == (name == "api.js")
    assert not re.search(
        r"https?://(?!www\.w3\.org/)|XMLHttpRequest|sendBeacon|localStorage", module
    )
    for imported in re.findall(r"from \"([^\"]+)\"", module):
        assert imported.removeprefix("./") in FILES


def test_every_module_is_used_by_the_page() -> None:
    used, found = {"main.js"}, {"main.js"}
    while found:
        imports = {i for name in found for i in re.findall(r"from \"\./([^\"]+)\"", text(name))}
        found = imports - used
        used |= imports
    assert used == set(SCRIPTS)


def test_every_colour_of_the_style_is_named_for_both_schemes() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", text("base.css"), re.DOTALL)
    names = [set(re.findall(r"(--[\w-]+):", block)) for block in (light, dark)]
    assert names[0] - names[1] == {"--round", "--mono"}
    asked = set(re.findall(r"var\((--[\w-]+)\)", text("base.css") + text("views.css")))
    assert asked <= names[0]
