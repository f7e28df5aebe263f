"""The console as a person uses it: a real browser on a real server with the models that ship.

MIEN_PICTURES=1 also takes the pictures of docs/pictures (see docs/console.md).
"""

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.ExifTags import Base
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect

from service.settings import SHIPPED_MODELS
from tests.cartoon import cartoon_photograph
from tests.drawn import png
from tests.e2e.browser import (
    DESKTOP,
    PHONE,
    browsing,
    needs_browser,
    open_view,
    photograph,
    violations,
    visiting,
    write_film,
)
from tests.e2e.server import ROOT, serving
from tests.e2e.test_cli import MIEN

pytestmark = needs_browser
NAME = "Eileen Collins"
PORTRAIT = photograph()
AGAIN = photograph(mirrored=True, darker=0.9)
TWO = png(cartoon_photograph([(20, 40, 200), (300, 40, 240)]))
STRANGER = png(cartoon_photograph([(200, 100, 240)]))
NOBODY = png(cartoon_photograph([]))
MARKUP = '<img src=x onerror="window.ran=1"><script>window.ran=1</script>'
OFF = {"expression": "off", "attributes": "off"}
VIEWS = ("Identify", "Verify", "Analyze", "Enrol", "People", "Service")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("console")
    with serving(folder / "data", folder / "log") as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(write_film(tmp_path_factory.mktemp("camera") / "film.y4m")) as browser:
        yield browser


@pytest.fixture
def gallery(address: str, request: pytest.FixtureRequest) -> str:
    """A gallery of the test's own in which the astronaut is enrolled."""
    name = re.sub(r"\W+", "-", request.node.name)[:100]
    httpx.post(f"{address}/galleries", json={"name": name}, timeout=60).raise_for_status()
    enrolled = httpx.post(
        f"{address}/enroll",
        files={"image": PORTRAIT},
        data={"gallery": name, "person_id": "collins", "name": NAME},
        timeout=60,
    )
    enrolled.raise_for_status()
    return name


def upload(view: Locator, *pictures: bytes, place: int = 0) -> None:
    """Chooses files in a view's place for photographs."""
    view.locator("input[type=file]").nth(place).set_input_files(
        [file_of(i, picture) for i, picture in enumerate(pictures)]
    )


def file_of(i: int, picture: bytes) -> FilePayload:
    return {"name": f"{i}.jpg", "mimeType": "image/jpeg", "buffer": picture}


def view_of(page: Page, name: str, gallery: str | None = None) -> Locator:
    """The view, opened; gallery: chosen in it."""
    open_view(page, name)
    view = page.get_by_role("tabpanel", name=name)
    if gallery is not None:
        view.get_by_label("Gallery", exact=True).select_option(gallery)
    return view


def test_several_photographs_are_enrolled_and_the_refused_ones_say_why(
    browser: Browser, address: str, gallery: str
) -> None:
    with visiting(browser, address) as page:
        view = view_of(page, "Enrol", gallery)
        view.get_by_label("Name").fill("Colonel Collins")
        view.get_by_label("Id").fill("colonel")
        upload(view, PORTRAIT, TWO, photograph(blurred=6), NOBODY)
        view.get_by_role("button", name="Enrol 4 photographs").click()
        shots = view.locator(".shots > li")
        expect(shots.nth(0)).to_contain_text("Enrolled")
        expect(shots.nth(1)).to_contain_text("Several faces")
        expect(shots.nth(1)).to_contain_text("2 faces were found")
        assert shots.nth(1).locator(".mark").count() == 2
        expect(shots.nth(2).locator(".reasons li").first).to_contain_text(
            re.compile(r"Sharpness too low: [\d.]+, where the limit is \d+")
        )
        expect(shots.nth(3)).to_contain_text("No face")
        expect(view.get_by_role("status")).to_contain_text("1 face of Colonel Collins enrolled")
        expect(view.get_by_role("status")).to_contain_text("3 photographs were refused")
    person = httpx.get(f"{address}/galleries/{gallery}/persons/colonel", timeout=60).json()
    assert (person["name"], person["faces"]) == ("Colonel Collins", 1)


def test_an_enrolment_of_which_nothing_is_left_is_told_with_the_reason(
    browser: Browser, address: str
) -> None:
    with visiting(browser, address, expected=("422",)) as page:
        view = view_of(page, "Enrol")
        upload(view, NOBODY)
        view.get_by_role("button", name="Enrol 1 photograph").click()
        expect(view.get_by_role("alert")).to_be_visible()
        expect(view.locator(".shots > li")).to_contain_text("No face")


def test_photographs_that_are_sent_again_after_a_lost_answer_are_enrolled_once(
    browser: Browser, address: str, gallery: str
) -> None:
    with visiting(browser, address, expected=("ERR_FAILED",)) as page:
        view = view_of(page, "Enrol", gallery)
        view.get_by_label("Name").fill("Lost")
        upload(view, PORTRAIT)

        def lose(route: Route) -> None:
            assert route.fetch().status == 201
            route.abort()

        page.route("**/enroll", lose, times=1)
        send = view.get_by_role("button", name="Enrol 1 photograph")
        send.click()
        expect(view.get_by_role("alert")).to_contain_text("out of reach")
        send.click()
        expect(view.get_by_role("status")).to_contain_text("Lost has 1 face")
        expect(view.locator(".shots .decision")).to_have_text("Enrolled")
    people = httpx.get(f"{address}/galleries/{gallery}/persons", timeout=60).json()["items"]
    assert sorted((one["name"], one["faces"]) for one in people) == [(NAME, 1), ("Lost", 1)]


def test_a_photograph_that_is_added_while_others_are_sent_is_sent_alone(
    browser: Browser, address: str, gallery: str
) -> None:
    with visiting(browser, address) as page:
        view = view_of(page, "Enrol", gallery)
        view.get_by_label("Id").fill("first")
        upload(view, PORTRAIT)

        def add_first(route: Route) -> None:
            upload(view, AGAIN)
            expect(view.locator(".shots > li")).to_have_count(2)
            route.continue_()

        page.route("**/enroll", add_first, times=1)
        view.get_by_role("button", name="Enrol 1 photograph").click()
        expect(view.get_by_role("status")).to_contain_text("1 face of first enrolled")
        view.get_by_label("Id").fill("second")
        view.get_by_role("button", name="Enrol 1 photograph").click()
        expect(view.get_by_role("status")).to_contain_text("1 face of second enrolled")


def test_a_dropped_photograph_is_identified_with_the_name_over_the_face(
    browser: Browser, address: str, gallery: str
) -> None:
    asked = {"files": {"image": AGAIN}, "data": {"gallery": gallery}, "timeout": 60}
    answer = httpx.post(f"{address}/identify", **asked).json()
    [face] = answer["images"][0]["faces"]
    with visiting(browser, address) as page:
        view = view_of(page, "Identify", gallery)
        drop(page, view.locator(".drop"), AGAIN)
        mark = view.locator(".mark.match")
        expect(mark.locator("text")).to_have_text(re.compile(NAME))
        assert float(mark.locator(".line").get_attribute("x") or "") == face["box"]["x"]
        said = view.get_by_role("status")
        expect(said.locator(".decision")).to_have_text("Match")
        expect(said).to_contain_text(f"{face['candidates'][0]['similarity']:.3f}")
        expect(said).to_contain_text(f"at least {answer['threshold']['similarity']:.3f}")
        expect(said).to_contain_text("matches anyone in the gallery once in 100 searches")
        view.get_by_label("A stranger may match anyone").select_option("0.001")
        expect(said).to_contain_text("once in 1,000 searches")
        upload(view, STRANGER)
        expect(said).to_contain_text("nobody in this gallery")
        expect(view.locator(".mark.no_match text")).to_have_text(re.compile("unknown"))
        upload(view, NOBODY)
        expect(said).to_contain_text("No face was found")


@pytest.mark.parametrize("kind", ["TIFF", "turned"])
def test_a_photograph_is_marked_upright_also_where_the_browser_cannot_show_it(
    browser: Browser, address: str, gallery: str, kind: str
) -> None:
    picture = Image.open(io.BytesIO(PORTRAIT)).crop((0, 0, 512, 400))
    file = io.BytesIO()
    if kind == "TIFF":
        picture.save(file, "TIFF")
    else:
        exif = Image.Exif()
        exif[Base.Orientation] = 6  # is shown turned a quarter to the right
        picture.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif)
    with visiting(browser, address) as page:
        view = view_of(page, "Identify", gallery)
        upload(view, file.getvalue())
        expect(view.locator(".mark.match text")).to_have_text(re.compile(NAME))
        expect(view.get_by_text("This browser cannot show")).to_have_count(int(kind == "TIFF"))
        size = view.locator(".photograph canvas").evaluate("(one) => [one.width, one.height]")
        assert size == [512, 400]


def drop(page: Page, place: Locator, picture: bytes) -> None:
    """Drops the picture as a file, from outside the browser."""
    transfer = page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.jpg"));
            return transfer;
        }""",
        list(picture),
    )
    for event in ("dragenter", "dragover", "drop"):
        place.dispatch_event(event, {"dataTransfer": transfer})


def test_the_camera_s_photographs_are_enrolled_and_identified(
    browser: Browser, address: str, gallery: str
) -> None:
    with visiting(browser, address, permissions=["camera"]) as page:
        view = view_of(page, "Enrol", gallery)
        view.get_by_label("Id").fill("camera")
        view.get_by_role("button", name="Camera").click()
        for taken in (1, 2):
            page.get_by_role("button", name="Take photograph").click()
            expect(page.get_by_text(f"{taken} photograph")).to_be_visible()
        page.get_by_role("button", name="Done").click()
        view.get_by_role("button", name="Enrol 2 photographs").click()
        expect(view.get_by_role("status")).to_contain_text("2 faces of camera enrolled")
        view = view_of(page, "Identify")
        view.get_by_role("button", name="Camera").click()
        page.get_by_role("button", name="Take photograph").click()
        expect(view.get_by_role("status").locator(".decision")).to_have_text("Match")
        assert page.locator("video").count() == 0


def test_a_camera_that_is_not_allowed_is_told(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        view_of(page, "Identify").get_by_role("button", name="Camera").click()
        expect(page.get_by_role("alert")).to_contain_text("was not allowed to use it")


def test_two_photographs_are_compared_on_the_calibration_s_curves(
    browser: Browser, address: str
) -> None:
    files = {"image_a": PORTRAIT, "image_b": AGAIN}
    answer = httpx.post(f"{address}/verify", files=files, timeout=60).json()
    with visiting(browser, address) as page:
        view = view_of(page, "Verify")
        upload(view, PORTRAIT, place=0)
        upload(view, AGAIN, place=1)
        said = view.get_by_role("status")
        expect(said.locator(".decision")).to_have_text("Match")
        expect(said.locator(".big")).to_have_text(f"{answer['similarity']:.3f}")
        expect(said).to_contain_text("taken for one once in 1,000 comparisons")
        expect(said).to_contain_text(re.compile(r"one in [\d,]+ pairs of different people"))
        found, threshold = (line_x(view, name) for name in ("found", "threshold"))
        assert found > threshold
        for curve in ("mated", "strangers"):
            assert len(view.locator(f".curves .{curve}").get_attribute("d") or "") > 500
        assert view.locator(".photograph .mark.match").count() == 2
        upload(view, STRANGER, place=1)
        expect(said.locator(".decision")).to_have_text("No match")
        assert line_x(view, "found") < threshold


def test_of_two_photographs_for_a_side_the_later_one_is_compared(
    browser: Browser, address: str
) -> None:
    """Also where the browser has read it sooner."""
    with visiting(browser, address) as page:
        view = view_of(page, "Verify")
        upload(view, PORTRAIT, place=0)
        page.evaluate(
            """() => {
                const read = window.createImageBitmap;
                window.createImageBitmap = async (...given) => {
                    window.createImageBitmap = read;
                    const picture = await read(...given);
                    await new Promise((resolve) => { window.finish = resolve; });
                    return picture;
                };
            }"""
        )
        upload(view, STRANGER, place=1)
        upload(view, AGAIN, place=1)
        decision = view.get_by_role("status").locator(".decision")
        expect(decision).to_have_text("Match")
        page.evaluate("finish()")
        page.evaluate("() => new Promise(requestAnimationFrame)")
        expect(view.locator(".photograph .mark.match")).to_have_count(2)
        expect(decision).to_have_text("Match")


def line_x(view: Locator, name: str) -> float:
    return float(view.locator(f".curves .{name} line").get_attribute("x1") or "")


def test_expression_and_attributes_are_bars_as_long_as_their_scores(
    browser: Browser, address: str
) -> None:
    asked: dict[str, Any] = {"files": {"image": PORTRAIT}, "timeout": 60}
    features = {"features": "expression,attributes"}
    answer = httpx.post(f"{address}/analyze", data=features, **asked).json()
    [face] = answer["images"][0]["faces"]
    with visiting(browser, address) as page:
        view = view_of(page, "Analyze")
        upload(view, PORTRAIT)
        bars = view.locator(".bars").first.locator("li")
        expect(bars).to_have_count(8)
        expect(bars.first).to_contain_text(face["expression"]["label"].capitalize())
        width = float(bars.first.locator(".filled").get_attribute("width") or "")
        assert width == pytest.approx(200 * face["expression"]["confidence"])
        attributes = view.locator(".bars").filter(has=page.get_by_text("Attributes"))
        assert attributes.locator("li").count() == len(face["attributes"])
        view.get_by_label("Also what cannot be told well").check()
        expect(view.locator(".bars small").first).to_have_text("cannot be told well")
        assert attributes.locator("li").count() > len(face["attributes"])


def test_features_that_are_off_are_said_to_be_and_cannot_be_asked_for(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        serving(tmp_path / "data", tmp_path / "log", **OFF) as address,
        visiting(browser, address) as page,
    ):
        view = view_of(page, "Analyze")
        expect(view.get_by_text("Expression is switched off")).to_be_visible()
        expect(view.get_by_text("Attributes is switched off")).to_be_visible()
        expect(view.locator(".drop")).to_be_hidden()


def test_why_the_service_is_not_ready_is_told_and_that_it_has_gone(
    browser: Browser, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for name in ("mtcnn", "ecacface-mobile"):
        shutil.copytree(SHIPPED_MODELS / name, models / name)
    expected = ("503", "ERR_CONNECTION_REFUSED")
    with ExitStack() as open_pages:
        with serving(tmp_path / "data", tmp_path / "log", models=models, **OFF) as address:
            page = open_pages.enter_context(visiting(browser, address, expected=expected))
            page.clock.install()
            view = view_of(page, "Service")
            expect(view.locator(".readiness.good")).to_have_text("Ready")
            graph = models / "ecacface-mobile" / "model.onnx"
            graph.write_bytes(graph.read_bytes() + b" ")
            page.clock.run_for(5000)
            expect(view.locator(".readiness.bad")).to_contain_text(
                "Not ready: model.onnx of the model ecacface-mobile was changed on disk"
            )
        page.clock.run_for(5000)
        expect(view.get_by_role("alert")).to_contain_text("out of reach")
        expect(view.locator(".readiness")).to_have_count(0)
        upload(view_of(page, "Identify"), PORTRAIT)
        expect(page.get_by_role("alert")).to_contain_text("out of reach")


def test_people_are_paged_searched_renamed_and_deleted(
    browser: Browser, address: str, gallery: str
) -> None:
    persons = f"{address}/galleries/{gallery}/persons"
    with httpx.Client(timeout=60) as client:
        for i in range(44):
            client.post(persons, json={"id": f"p{i:02}", "name": f"Person {i}"}).raise_for_status()
    with visiting(browser, address, expected=("404",)) as page:
        view = view_of(page, "People", gallery)
        rows = view.locator("tbody tr")
        expect(view).to_contain_text("45 people, 1 face")
        seen = []
        for count in (20, 20, 5):
            expect(rows).to_have_count(count)
            seen += rows.locator("th").all_inner_texts()
            if count == 20:
                view.get_by_role("button", name="Next").click()
                expect(rows.first.locator("th")).not_to_have_text(seen[-20])
        assert sorted(seen) == sorted([NAME, *(f"Person {i}" for i in range(44))])
        view.get_by_role("button", name="Back").click()
        expect(rows).to_have_count(20)
        search(view, "eileen")
        expect(rows).to_have_count(1)
        rows.get_by_role("button", name=NAME).click()
        window = page.get_by_role("dialog", name=NAME)
        window.get_by_label("Name").fill("Colonel")
        window.get_by_role("button", name="Rename").click()
        expect(page.get_by_role("dialog", name="Colonel")).to_contain_text("The name is changed")
        assert httpx.get(f"{persons}/collins", timeout=60).json()["name"] == "Colonel"
        page.get_by_role("button", name=re.compile("^Delete face")).click()
        confirm(page, "Delete face")
        expect(page.get_by_role("dialog", name="Colonel")).to_contain_text("0 faces")
        page.get_by_role("button", name="Delete person").click()
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Enter")
        assert httpx.get(f"{persons}/collins", timeout=60).is_success  # it was cancelled
        page.get_by_role("button", name="Delete person").click()
        confirm(page, "Delete person")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(rows).to_have_count(0)
        assert httpx.get(f"{persons}/collins", timeout=60).status_code == 404
        search(view, "p07")
        expect(rows).to_have_count(1)


def test_an_erasure_whose_window_is_closed_meanwhile_is_seen_all_the_same(
    browser: Browser, address: str, gallery: str
) -> None:
    with visiting(browser, address) as page:
        view = view_of(page, "People", gallery)
        view.get_by_role("button", name=NAME).click()
        page.get_by_role("button", name="Delete person").click()

        def close_first(route: Route) -> None:
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_have_count(1)
            route.continue_()

        page.route("**/persons/collins", close_first, times=1)
        page.get_by_role("button", name="Delete person").last.click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(view.get_by_text("Nobody is enrolled in this gallery.")).to_be_visible()


def search(view: Locator, text: str) -> None:
    view.get_by_label("Name or id").fill(text)
    view.get_by_role("button", name="Search").click()


def confirm(page: Page, action: str) -> None:
    """Says yes to an erasure, and closes its receipt where there is one."""
    window = page.get_by_role("dialog").last
    window.get_by_role("button", name=action).click()
    expect(window.get_by_role("button", name=action)).to_have_count(0)
    receipt = page.get_by_role("dialog", name="Erased")
    if receipt.count():
        receipt.get_by_role("button", name="Close").click()


def test_a_gallery_is_made_and_deleted_when_its_name_is_typed(
    browser: Browser, address: str
) -> None:
    with visiting(browser, address) as page:
        view = view_of(page, "People")
        view.get_by_role("button", name="New gallery").click()
        page.get_by_role("dialog").get_by_label("Name").fill("visitors")
        page.get_by_role("button", name="Create").click()
        expect(view).to_contain_text("visitors: 0 people")
        view.get_by_role("button", name="Delete gallery").click()
        window = page.get_by_role("dialog")
        erase = window.get_by_role("button", name="Delete gallery")
        expect(window.get_by_role("button", name="Cancel")).to_be_focused()
        for typed in ("", "visitor"):
            window.get_by_label("Type visitors to go on").fill(typed)
            expect(erase).to_be_disabled()
        window.get_by_label("Type visitors to go on").fill("visitors")
        confirm(page, "Delete gallery")
        expect(view).to_contain_text("default: ")
    assert httpx.get(f"{address}/galleries/visitors", timeout=60).status_code == 404


def test_a_gallery_that_asks_for_consent_gets_it_and_gives_all_it_keeps_and_a_receipt(
    browser: Browser, address: str
) -> None:
    with visiting(browser, address) as page:
        view = view_of(page, "People")
        view.get_by_role("button", name="New gallery").click()
        window = page.get_by_role("dialog")
        window.get_by_label("Name").fill("careful")
        window.get_by_label("Days after which").fill("30")
        window.get_by_label("Enrol nobody without").check()
        window.get_by_role("button", name="Create").click()
        expect(view).to_contain_text("careful: 0 people, 0 faces, kept for 30 days")
        view = view_of(page, "Enrol")
        expect(view.get_by_label("What allows")).to_have_value("explicit-consent")
        view.get_by_label("Given at").fill("2026-07-31T09:30")
        view.get_by_label("Where it is written down").fill("form 17")
        view.get_by_label("Name").fill(NAME)
        upload(view, PORTRAIT)
        view.get_by_role("button", name="Enrol 1 photograph").click()
        expect(view.get_by_role("status")).to_contain_text("1 face of Eileen Collins enrolled")
        view_of(page, "People").get_by_role("button", name=NAME).click()
        window = page.get_by_role("dialog")
        expect(window).to_contain_text("Explicit consent, form 17, since 31 Jul 2026")
        expect(window).to_contain_text("Expires")
        with page.expect_download() as download:
            window.get_by_role("button", name="Export").click()
        exported = json.loads(download.value.path().read_text(encoding="utf-8"))
        assert exported["person"]["consent"]["reference"] == "form 17"
        assert len(exported["faces"][0]["embedding"]) == 512
        window.get_by_role("button", name="Delete person").click()
        page.get_by_role("button", name="Delete person").last.click()
        receipt = page.get_by_role("dialog", name="Erased")
        expect(receipt).to_contain_text(exported["person"]["id"])
        with page.expect_download() as download:
            receipt.get_by_role("button", name="Keep the receipt").click()
        kept = json.loads(download.value.path().read_text(encoding="utf-8"))
        told = httpx.get(
            f"{address}/galleries/careful/receipts/{kept['receipt']}", timeout=60
        ).json()
        assert told == kept


def test_a_name_with_markup_is_only_a_name(browser: Browser, address: str, gallery: str) -> None:
    changed = {"name": MARKUP, "metadata": {"note": MARKUP}}
    httpx.patch(f"{address}/galleries/{gallery}/persons/collins", json=changed).raise_for_status()
    with visiting(browser, address) as page:
        view = view_of(page, "Identify", gallery)
        upload(view, AGAIN)
        expect(view.locator(".card .name")).to_have_text(MARKUP)
        expect(view.locator(".mark text")).to_contain_text(MARKUP)
        view_of(page, "People").get_by_role("button", name=MARKUP).click()
        expect(page.get_by_role("dialog", name=MARKUP)).to_contain_text("onerror")
        page.get_by_role("button", name="Delete person").click()
        expect(page.get_by_role("dialog", name=f"Delete {MARKUP}?")).to_be_visible()
        assert page.evaluate("window.ran") is None
        assert page.locator("img").count() == 1  # the page's own


def test_the_policy_lets_no_foreign_script_style_or_host_in(browser: Browser, address: str) -> None:
    with visiting(browser, address, expected=("Content Security Policy",)) as page:
        open_view(page, "Service")
        page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.ran = 1";
                document.head.append(script);
                document.body.setAttribute("style", "color: red");
            }"""
        )
        assert page.evaluate("window.ran") is None
        assert page.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
        stopped = "() => fetch('http://127.0.0.2:9/').then(() => false, () => true)"
        assert page.evaluate(stopped)


def test_a_key_is_asked_for_kept_for_the_tab_alone_and_told_what_it_lacks(
    browser: Browser, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    create = [*MIEN, "keys", "create", "door", "--scope", "recognise", "--data", str(data)]
    made = subprocess.run([*create, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    key = json.loads(made.stdout)["key"]
    refused = ("401", "403")
    with (
        serving(data, tmp_path / "log", keys="required", **OFF) as address,
        visiting(browser, address, expected=refused) as page,
    ):
        window = page.get_by_role("dialog", name="The key of this service")
        for given in ("wrong", key):
            expect(window).to_contain_text("A key that holds is needed here")
            window.get_by_label("Key").fill("ключ")  # which no header can carry
            window.get_by_role("button", name="Use this key").click()
            expect(window.locator("input:invalid")).to_be_focused()
            window.get_by_label("Key").fill(f" {given} ")
            window.get_by_role("button", name="Use this key").click()
        expect(window).to_have_count(0)
        view = view_of(page, "Identify")
        upload(view, PORTRAIT)
        expect(view.get_by_role("status")).to_contain_text("1 face in default")
        open_view(page, "Service")
        missing = page.get_by_role("tabpanel").get_by_role("alert")
        expect(missing).to_contain_text("the scope that this call needs: observe")
        assert page.evaluate("Object.values(sessionStorage)") == [key]
        assert page.evaluate("localStorage.length + document.cookie.length") == 0
        other = page.context.new_page()
        other.goto(address)
        expect(other.get_by_role("dialog", name="The key of this service")).to_be_visible()
        page.get_by_role("button", name="Key").click()
        window.get_by_role("button", name="Forget the key").click()
        expect(window).to_contain_text("A key that holds is needed here")
        assert page.evaluate("sessionStorage.length") == 0


def test_live_figures_are_asked_for_while_they_are_looked_at(
    browser: Browser, address: str, gallery: str
) -> None:
    """The browser's clock is ours, so that nobody waits for the seconds between two looks."""
    with visiting(browser, address) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(address)))
        page.clock.install()
        view = view_of(page, "Service")
        expect(view.locator(".readiness")).to_have_text("Ready")
        row = view.locator("tr").filter(has=page.get_by_text("/enroll", exact=True))
        before = int(row.locator("td").first.inner_text())
        files, fields = {"image": PORTRAIT}, {"gallery": gallery, "person_id": "more"}
        httpx.post(f"{address}/enroll", files=files, data=fields, timeout=60).raise_for_status()
        page.clock.run_for(5000)
        expect(row.locator("td").first).to_have_text(str(before + 1))
        expect(view.locator(".tile").first).to_contain_text(re.compile(r"[1-9][\d,]*/min"))
        page.clock.run_for(5000)
        expect(view.locator(".spark polyline")).to_have_count(6)
        expect(view).to_contain_text("ecacface-mobile")
        looks = asked.count("/metrics")
        assert looks >= 2
        view_of(page, "Identify")
        page.clock.run_for(60_000)
        assert asked.count("/metrics") == looks


def test_a_photograph_is_identified_by_the_keyboard_alone(
    browser: Browser, address: str, gallery: str
) -> None:
    with visiting(browser, address) as page:
        page.on("filechooser", lambda _: None)  # from now on the browser asks us for files
        expect(page.get_by_role("option", name=gallery).first).to_be_attached()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="To the content")).to_be_focused()
        for _ in range(2):
            page.keyboard.press("Tab")
        expect(page.get_by_role("tab", name="Identify")).to_be_focused()
        page.keyboard.press("End")
        expect(page.get_by_role("tabpanel", name="Service")).to_be_visible()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("tab", name="Identify")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.type(gallery)
        view = page.get_by_role("tabpanel", name="Identify")
        for _ in range(2):
            page.keyboard.press("Tab")
        assert view.get_by_label("Gallery", exact=True).input_value() == gallery
        assert page.evaluate("document.activeElement.type") == "file"
        focused = page.evaluate(
            "getComputedStyle(document.querySelector('.choose .button')).outlineStyle"
        )
        assert focused == "solid"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Space")
        chooser.value.set_files(file_of(0, AGAIN))
        expect(page.get_by_role("status").locator(".decision")).to_have_text("Match")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["desktop", "phone"])
def test_every_view_is_accessible_and_no_wider_than_the_page(
    browser: Browser, address: str, gallery: str, scheme: str, size: dict[str, int] | None
) -> None:
    given = {"color_scheme": scheme, **({"viewport": size} if size else {})}
    with visiting(browser, address, **given) as page:
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
        for name in VIEWS:
            view = view_of(page, name)
            filled(page, view, name, gallery)
            assert violations(page) == [], name
            wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], name
            if name == "People":
                view.get_by_role("button", name=NAME).click()
                page.get_by_role("dialog").locator("table").wait_for()
                assert violations(page) == []
                page.keyboard.press("Escape")


def filled(page: Page, view: Locator, name: str, gallery: str) -> None:
    """Fills the view as its user would."""
    if name in ("Identify", "Enrol", "People"):
        view.get_by_label("Gallery", exact=True).select_option(gallery)
    if name in ("Identify", "Verify", "Analyze"):
        upload(view, AGAIN)
    if name == "Verify":
        upload(view, PORTRAIT, place=1)
    if name in ("Identify", "Verify"):
        view.locator(".decision").first.wait_for()
    if name == "Analyze":
        view.locator(".bars").first.wait_for()
    if name == "Enrol":
        upload(view, PORTRAIT, TWO)
        view.get_by_label("Id").fill("collins")
        view.get_by_role("button", name="Enrol 2 photographs").click()
        view.locator(".notice.good").wait_for()
    if name == "People":
        view.locator("table").wait_for()
    if name == "Service":
        view.locator("table").first.wait_for()


@pytest.mark.skipif("MIEN_PICTURES" not in os.environ, reason="MIEN_PICTURES=1 takes pictures")
def test_the_pictures_of_the_documentation_are_taken(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path / "data", tmp_path / "log") as address:
        people = f"{address}/galleries/default/persons"
        for name in ("Amal Haddad", "Jun Sato", "Marta Kowalska", "Tom Okafor"):
            made = {"id": name.split()[0].lower(), "name": name}
            httpx.post(people, json=made, timeout=60).raise_for_status()
        with visiting(browser, address, color_scheme="light") as page:
            enrol = view_of(page, "Enrol")
            enrol.get_by_label("Name").fill(NAME)
            enrol.get_by_label("Id").fill("collins")
            upload(enrol, PORTRAIT, photograph(blurred=6))
            enrol.get_by_role("button", name="Enrol 2 photographs").click()
            enrol.locator(".notice.good").wait_for()
            save(page, "enrol-light")
            filled(page, view_of(page, "Identify"), "Identify", "default")
            save(page, "identify-light")
            view_of(page, "People").locator("table").wait_for()
            save(page, "people-light")
        tall = {"width": 1180, "height": 1080}
        with visiting(browser, address, color_scheme="dark", viewport=tall) as page:
            filled(page, view_of(page, "Verify"), "Verify", "default")
            save(page, "verify-dark")
            page.set_viewport_size(DESKTOP)
            page.clock.install()
            service = view_of(page, "Service")
            expect(service.locator(".tile").first).to_be_visible()
            for i in range(14):
                for path in ("/identify", "/expression")[: 1 + i % 5 // 3]:
                    for _ in range(1 + i * 5 % 4):
                        httpx.post(f"{address}{path}", files={"image": AGAIN}, timeout=60)
                with page.expect_response("**/metrics"):
                    page.clock.run_for(4100)
            expect(service.locator(".spark polyline")).to_have_count(6)
            save(page, "service-dark")
        for scheme, name in (("light", "Identify"), ("dark", "Analyze")):
            with visiting(browser, address, color_scheme=scheme, viewport=PHONE) as page:
                view = view_of(page, name)
                filled(page, view, name, "default")
                result = view.locator(".result, .stage").first
                result.evaluate("(one) => scrollTo(0, one.offsetTop - 12)")
                save(page, f"{name.lower()}-phone")


def save(page: Page, name: str) -> None:
    """Keeps what is seen as a small picture for the documentation."""
    page.mouse.move(0, 0)  # over nothing
    seen = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    small = seen.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(ROOT / "docs" / "pictures" / f"console-{name}.png", optimize=True)
