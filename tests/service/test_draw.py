"""service/vision/draw.py: a picture in which every face is marked, and no text lies on another."""

import cv2
import numpy as np
import pytest

from service.vision.align import IDENTITY_CANVAS
from service.vision.draw import Mark, as_png, can_draw, draw_faces
from service.vision.faces import Box, Photograph


def mark(x: float, y: float, side: float, short: str = "1", *lines: str) -> Mark:
    landmarks = IDENTITY_CANVAS.template_52 * side / 112 + (x, y)
    return Mark(Box(x, y, side, side), landmarks, short, lines or (short,))


def plain(light: int, width: int = 640, height: int = 480) -> Photograph:
    return Photograph(np.full((height, width, 3), light, np.uint8))


def drawn_on(photograph: Photograph, *marks: Mark) -> np.ndarray:
    """Where the picture is no more as the photograph was, bool (height, width)."""
    return (draw_faces(photograph, marks) != photograph.pixels_rgb).any(axis=2)


@pytest.mark.parametrize("light", [0, 128, 255])
def test_text_and_lines_stand_out_from_any_background(light: int) -> None:
    photograph = plain(light)
    picture = draw_faces(photograph, [mark(200, 100, 150, "1", "1 Ada", "happiness 93 %")])
    under = picture[256:310, 200:330].astype(int)
    assert under.max() == 255
    assert under.min() <= 51
    outline = picture[90:260, 190:360].astype(int).reshape(-1, 3)
    assert outline.min() == 0
    assert ((outline - (90, 220, 255)) == 0).all(axis=1).any()


def test_the_photograph_itself_is_left_as_it_was() -> None:
    photograph = plain(128)
    draw_faces(photograph, [mark(200, 100, 150)])
    assert (photograph.pixels_rgb == 128).all()


@pytest.mark.parametrize("side", [40, 160, 400])
def test_lines_and_letters_grow_with_the_face(side: int) -> None:
    photograph = plain(128, 1000, 1000)
    drawn = drawn_on(photograph, mark(300, 300, side, "1", "1 Ada"))
    rows = np.flatnonzero(drawn[:, 300 : 300 + side].any(axis=1))
    below = rows[rows > 300 + side + 2]
    assert len(below) == pytest.approx(max(11, 0.13 * side) * 1.7, abs=3)


def test_each_letter_is_drawn_and_what_cannot_be_is_refused_before() -> None:
    names = ("Zo\u00eb", "Zoe\u0308", "Łukasz", "Ελένη", "Иван", "李雷", "山田 ひらカナ", "김철수")
    assert all(can_draw(name) for name in names)
    assert not any(can_draw(name) for name in ("عمر", "יעל", "हिन्दी", "ไทย", "Ada 😀", "a\nb"))
    with pytest.raises(ValueError, match="عمر"):
        draw_faces(plain(0), [mark(0, 0, 50, "1", "1 عمر")])


def test_a_letter_of_two_signs_is_drawn_as_one() -> None:
    one, two = (
        draw_faces(plain(0), [mark(100, 100, 200, "1", name)]) for name in ("Zo\u00eb", "Zoe\u0308")
    )
    assert (one == two).all()


def test_no_letter_that_can_be_drawn_comes_out_as_a_question_mark() -> None:
    def picture(text: str) -> bytes:
        return draw_faces(plain(0), [mark(100, 100, 200, "1", text)]).tobytes()

    unknown = picture("?")
    for letter in "ëŁΈИ李ひカ김·…":
        assert picture(letter) != unknown, letter


def test_a_name_longer_than_the_picture_is_cut_and_stays_inside() -> None:
    photograph = plain(128, 300, 200)
    long = drawn_on(photograph, mark(200, 50, 60, "1", "1 " + "Wolfeschlegelstein " * 5))
    cut = draw_faces(photograph, [mark(200, 50, 60, "1", "1 " + "Wolfeschlegelstein " * 5)])
    assert cut.shape == (200, 300, 3)
    assert long[112:130].any(axis=0).mean() > 0.8


def test_neighbours_texts_lie_on_no_face_and_not_on_each_other() -> None:
    photograph = plain(128)
    left, right = (
        mark(x, 100, 80, str(n), f"{n} somebody of a long name") for n, x in ((1, 200), (2, 300))
    )
    both = drawn_on(photograph, left, right).sum()
    alone = drawn_on(photograph, left).sum() + drawn_on(photograph, right).sum()
    assert both == pytest.approx(alone, rel=0.01)  # a letter may have the grey of the background


def test_a_crowd_keeps_at_least_its_numbers() -> None:
    photograph = plain(128, 200, 200)
    places = [(x, y) for y in range(0, 200, 22) for x in range(0, 200, 22)]
    marks = [mark(x, y, 20, str(n), f"{n} somebody") for n, (x, y) in enumerate(places, 1)]
    picture = draw_faces(photograph, marks)
    for one in marks:
        near = picture[
            max(0, int(one.box.y) - 25) : int(one.box.y) + 45,
            max(0, int(one.box.x) - 25) : int(one.box.x) + 45,
        ]
        assert (near == 255).all(axis=2).any()


@pytest.mark.parametrize("place", [(-30, -30), (600, 440), (-200, 0), (900, 900)])
def test_a_face_that_reaches_beyond_the_photograph_is_drawn_as_far_as_it_is_there(
    place: tuple[int, int],
) -> None:
    picture = draw_faces(plain(128), [mark(*place, 100, "1", "1 Ada", "neutral 50 %")])
    assert picture.shape == (480, 640, 3)


def test_a_photograph_smaller_than_its_text_is_drawn_all_the_same() -> None:
    assert draw_faces(plain(128, 8, 8), [mark(0, 0, 8, "1", "1 Ada")]).shape == (8, 8, 3)


def test_a_png_holds_the_pixels_in_their_colours() -> None:
    picture = draw_faces(plain(200), [mark(100, 100, 100)])
    read = cv2.imdecode(np.frombuffer(as_png(picture), np.uint8), cv2.IMREAD_COLOR)
    assert (read[:, :, ::-1] == picture).all()
