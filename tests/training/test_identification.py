"""Searches in galleries, against loops over probes and people."""

import numpy as np
import pytest

from tests.training.people import people
from training.evaluate.bootstrap import draws, interval
from training.evaluate.identification import (
    Searches,
    best_of_faces,
    enrolled_rows,
    identification,
    rates,
    search,
)

NOBODY = (np.empty((0, 32), np.float32), np.empty(0, np.int64))


def searched(size: int | None = None, spread: float = 1.5) -> tuple[Searches, np.ndarray]:
    embeddings, labels = people(12, 5, spread)
    rows = enrolled_rows(labels, 2)
    best = best_of_faces(embeddings[~rows], embeddings[rows], labels[rows], 12)
    return search(best, labels[~rows], size or 12), labels[~rows]


def test_some_faces_of_each_person_are_enrolled_and_a_probe_is_left():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    rows = enrolled_rows(labels, 3)
    assert [int(rows[labels == person].sum()) for person in range(3)] == [3, 1, 1]


def test_a_person_scores_by_the_best_of_their_faces():
    embeddings, labels = people(6, 4, 1.5)
    shuffled = np.random.default_rng(0).permutation(24)
    best = best_of_faces(embeddings, embeddings[shuffled], labels[shuffled], 6)
    for probe in range(24):
        for person in range(6):
            faces = [embeddings[probe] @ face for face in embeddings[labels == person]]
            assert best[probe, person] == pytest.approx(max(faces), abs=1e-6)


def test_ranks_and_strangers_are_those_of_looking_through_the_whole_gallery():
    embeddings, labels = people(12, 5, 1.5)
    rows = enrolled_rows(labels, 2)
    found, own = searched()
    for probe, person in enumerate(own):
        row = embeddings[~rows][probe]
        scores = [max(row @ face for face in embeddings[rows & (labels == p)]) for p in range(12)]
        others = scores[:person] + scores[person + 1 :]
        assert found.own_Q[probe] == pytest.approx(scores[person], abs=1e-6)
        assert found.rank_Q[probe] == 1 + sum(s >= scores[person] for s in others)
        assert found.stranger_Q[probe] == pytest.approx(max(others), abs=1e-6)


def test_a_larger_gallery_is_never_easier():
    small, large = searched(4, spread=9)[0], searched(9, spread=9)[0]
    assert (small.rank_Q <= large.rank_Q).all()
    assert (small.stranger_Q <= large.stranger_Q).all()
    assert small.rank_Q.max() == 4
    assert (small.stranger_Q < large.stranger_Q).any()


def test_a_gallery_of_more_people_than_there_are_is_refused():
    with pytest.raises(ValueError, match="gallery of 13 people cannot be made of 12"):
        searched(13)


def test_rates_and_intervals_are_those_of_counting_searches():
    found, own = searched(spread=1.8)
    figures = rates(found, own, rounds=8)
    weights = draws(12, rounds=8)[:, own]
    rank_1, fnir = [], []
    for row in weights:
        rank_1.append(sum(w for w, r in zip(row, found.rank_Q, strict=True) if r == 1) / sum(row))
        threshold = next(
            t
            for t in sorted(found.stranger_Q)
            if sum(w for w, s in zip(row, found.stranger_Q, strict=True) if s > t) <= 0.1 * sum(row)
        )
        hits = (found.rank_Q == 1) & (found.own_Q > threshold)
        fnir.append(1 - sum(row[hits]) / sum(row))
    low, high = interval(np.array(rank_1))
    assert (figures["rank_1"], figures["rank_1_low"]) == pytest.approx((rank_1[0], low))
    assert figures["rank_1_high"] == pytest.approx(high)
    assert figures["fnir_at_fpir_1e1"] == pytest.approx(fnir[0])
    assert (figures["fnir_at_fpir_1e1_low"], figures["fnir_at_fpir_1e1_high"]) == pytest.approx(
        interval(np.array(fnir))
    )
    assert figures["cmc"]["5"] == np.mean([rank <= 5 for rank in found.rank_Q])


def test_people_who_cannot_be_confused_are_all_found_and_strangers_are_not():
    for row in identification(*people(12, 4, 0.01), *NOBODY, sizes=(4,), rounds=10):
        assert (row["rank_1"], row["fnir_at_fpir_1e1"], row["fnir_at_fpir_1e2"]) == (1, 0, 0)


def test_embeddings_by_chance_find_one_in_as_many_as_are_enrolled():
    rows = np.random.default_rng(1).normal(size=(600, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    found = identification(rows, np.repeat(np.arange(60), 10), *NOBODY, sizes=(5, 20), rounds=10)
    assert [row["rank_1"] for row in found] == pytest.approx([1 / 5, 1 / 20, 1 / 60], abs=0.05)
    assert found[1]["fnir_at_fpir_1e2"] > 0.95


def test_distractors_join_everyone_in_the_last_gallery_alone():
    embeddings, labels = people(12, 4, 1.5)
    others, whose = people(30, 2, 1.5, seed=5)
    found = identification(embeddings, labels, others, whose, sizes=(4,), rounds=5)
    assert [(row["people"], row["distractors"]) for row in found] == [(4, 0), (12, 0), (12, 30)]
    assert found[2]["rank_1"] <= found[1]["rank_1"]
    assert found[2]["threshold_at_fpir_1e1"] >= found[1]["threshold_at_fpir_1e1"]


def test_people_with_one_crop_each_cannot_be_searched_for():
    with pytest.raises(ValueError, match="two crops"):
        identification(*people(5, 1, 1.0), *NOBODY)
