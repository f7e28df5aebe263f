"""A real Chromium on a page of ours, watched: whom it asks, and what goes wrong in it.

The photograph is NASA's portrait of the astronaut Eileen Collins, in the public domain (credited in
docs/console.md); what else is needed of her is made from it.
"""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import axe_playwright_python
import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM: Final = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
ASTRONAUT: Final = Path(__file__).parent / "photographs" / "eileen-collins.jpg"
DESKTOP: Final = {"width": 1180, "height": 820}
PHONE: Final = {"width": 360, "height": 740}
_PATIENCE_MS: Final = 120_000  # for a machine that does much else
_AXE: Final = Path(axe_playwright_python.__file__).parent / "axe.min.js"


@contextmanager
def browsing(camera: Path) -> Iterator[Browser]:
    """A browser whose only camera plays the film in that file."""
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            timeout=_PATIENCE_MS,
            args=[
                "--no-sandbox" if os.geteuid() == 0 else "--enable-automation",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={camera}",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(
    browser: Browser,
    address: str,
    *,
    path: str = "/",
    expected: tuple[str, ...] = (),
    **context: Any,
) -> Iterator[Page]:
    """A page at the address. At its end: it asked nobody else, and nothing went wrong in it.

    expected: parts of the errors that the test provokes; each has to come.
    """
    told: list[str] = []
    asked: set[str] = set()
    visit = browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **context})
    page = visit.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    page.on("request", lambda request: asked.add(request.url))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("console", lambda said: said.type == "error" and told.append(said.text))
    try:
        page.goto(f"{address}{path}")
        yield page
        assert asked, "the page asked for nothing"
        assert not [url for url in asked if not url.startswith((f"{address}/", "blob:", "data:"))]
        assert not [text for text in told if not any(part in text for part in expected)]
        assert all(any(part in text for text in told) for part in expected)
    finally:
        visit.close()


def open_view(page: Page, name: str) -> None:
    """Goes to a view by its tab."""
    page.get_by_role("tab", name=name).click()
    page.get_by_role("tabpanel", name=name).wait_for()


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it is, best practices included."""
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run()")["violations"]
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


def photograph(**changes: Any) -> bytes:
    """The astronaut's portrait, as JPEG. changes: mirrored, darker (a share), blurred (px)."""
    picture = Image.open(ASTRONAUT)
    if changes.get("mirrored"):
        picture = ImageOps.mirror(picture)
    picture = ImageEnhance.Brightness(picture).enhance(changes.get("darker", 1.0))
    picture = picture.filter(ImageFilter.GaussianBlur(changes.get("blurred", 0)))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def write_film(path: Path) -> Path:
    """The path, now a film (YUV4MPEG2) of the astronaut before a camera."""
    frame = (
        Image.open(ASTRONAUT).crop((60, 0, 380, 240)).resize((640, 480), Image.Resampling.LANCZOS)
    )
    planes = cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2YUV_I420).tobytes()
    head = b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n"
    path.write_bytes(head + 2 * (b"FRAME\n" + planes))
    return path
