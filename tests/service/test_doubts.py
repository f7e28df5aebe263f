"""Which photographs look as if they lay in the wrong person's folder."""

import numpy as np
import pytest

from service.calibration.doubts import find_doubts


def people(count: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings near an axis a person: a cosine near 0.9 within, near 0 between."""
    labels = np.repeat(np.arange(count), each)
    rows = np.eye(64)[labels] + 0.04 * np.random.default_rng(0).normal(size=(len(labels), 64))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def test_people_who_are_themselves_raise_no_doubt() -> None:
    doubts = find_doubts(*people(10, 3), unlike_below=0.5, alike_from=0.5)
    assert (doubts.unlike, doubts.alike) == ([], [])


def test_a_photograph_in_the_wrong_folder_is_unlike_its_own_and_like_another_s() -> None:
    rows, labels = people(10, 3)
    labels[5] = 7  # one of the second person's among the eighth's
    doubts = find_doubts(rows, labels, unlike_below=0.5, alike_from=0.5)
    [(row, best)] = doubts.unlike
    assert row == 5
    assert best == pytest.approx(max(rows[5] @ rows[k] for k in (21, 22, 23)), abs=1e-6)
    [(a, b, similarity)] = doubts.alike
    assert b == 5
    assert a in (3, 4)
    assert similarity == pytest.approx(max(rows[5] @ rows[k] for k in (3, 4)), abs=1e-6)


def test_of_two_people_the_most_alike_are_named_once_and_the_worst_come_first() -> None:
    rows, labels = people(6, 2)
    rows[2:4] = rows[0:2]  # the second person is the first once more
    doubts = find_doubts(rows, labels, unlike_below=0.5, alike_from=0.5)
    [(a, b, similarity)] = doubts.alike
    assert (labels[a], labels[b]) == (0, 1)
    assert similarity >= 0.9999
    stricter = find_doubts(*people(6, 3), unlike_below=0.999, alike_from=-1)
    assert [d[-1] for d in stricter.unlike] == sorted(d[-1] for d in stricter.unlike)
    assert [d[-1] for d in stricter.alike] == sorted((d[-1] for d in stricter.alike), reverse=True)
    assert len(stricter.alike) == 15


def test_who_has_one_photograph_cannot_be_unlike_it() -> None:
    rows, labels = people(4, 1)
    assert find_doubts(rows, labels, unlike_below=1.0, alike_from=1.0).unlike == []
