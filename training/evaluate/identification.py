"""Identification in growing galleries, in the terms of ISO/IEC 19795-1: rank-1 and CMC where the
probe's person is enrolled (closed set), FNIR at FPIR where they may not be (open set).

A person scores by the best of their enrolled faces, as the service does, and a search returns the
best person alone. Q: probes; P: labelled people; D: distractors, enrolled and never searched for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.calibration.measure import RULE_OF
from training.evaluate.bootstrap import ROUNDS, draws, measured, share
from training.evaluate.verification import threshold_at

RANKS = (1, 5, 10, 20)
FPIRS = {"1e1": 1e-1, "1e2": 1e-2}


@dataclass(frozen=True)
class Searches:
    """What each probe found in its gallery.

    own_Q: similarity to its own person. rank_Q: the own person's place from 1, ties counting
    against them. stranger_Q: the best similarity in a gallery without its person."""

    own_Q: NDArray[np.float32]
    rank_Q: NDArray[np.int64]
    stranger_Q: NDArray[np.float32]


def enrolled_rows(labels_N: NDArray[np.int64], faces: int, *, seed: int = 0) -> NDArray[np.bool_]:
    """Which crops are enrolled: `faces` of each person, drawn at random; at least one crop of a
    person who has several is left as a probe."""
    order = np.random.default_rng(seed).permutation(len(labels_N))
    enrolled = np.zeros(len(labels_N), bool)
    for person in np.unique(labels_N):
        own = order[labels_N[order] == person]
        enrolled[own[: min(faces, max(len(own) - 1, 1))]] = True
    return enrolled


def best_of_faces(
    probes_QD: NDArray[np.float32],
    enrolled_ED: NDArray[np.float32],
    person_E: NDArray[np.int64],
    people: int,
) -> NDArray[np.float32]:
    """(Q, people): each probe's similarity to each person, the best of the person's faces.

    person_E: every enrolled face's person, in [0, people); everyone has at least one."""
    order = np.argsort(person_E, kind="stable")
    starts = np.searchsorted(person_E[order], np.arange(people))
    return np.maximum.reduceat(probes_QD @ enrolled_ED[order].T, starts, axis=1)


def search(
    best_QP: NDArray[np.float32], person_Q: NDArray[np.int64], size: int, *, seed: int = 0
) -> Searches:
    """Every probe searched twice: in a gallery of `size` people with its own, and in one without.

    best_QP: to every person who can be enrolled. person_Q: the probe's own column. Every person's
    probes meet a gallery of others drawn for that person, so that all people are searched for and
    all are strangers, whatever the size; the gallery of strangers has `size` people too, or one
    fewer where there are no more. Raises ValueError for a size outside [2, people]."""
    people = best_QP.shape[1]
    if not 2 <= size <= people:
        raise ValueError(f"a gallery of {size} people cannot be made of {people}")
    own_Q = best_QP[np.arange(len(person_Q)), person_Q]
    rank_Q, stranger_Q = np.empty(len(person_Q), np.int64), np.empty_like(own_Q)
    for person in np.unique(person_Q):
        rng = np.random.default_rng((seed, int(person)))
        others = rng.permutation(np.delete(np.arange(people), person))
        mine = np.flatnonzero(person_Q == person)
        found = best_QP[np.ix_(mine, others[:size])]
        stranger_Q[mine] = found.max(1)
        rank_Q[mine] = 1 + (found[:, : size - 1] >= own_Q[mine, None]).sum(1)
    return Searches(own_Q, rank_Q, stranger_Q)


def rates(
    searches: Searches, person_Q: NDArray[np.int64], *, rounds: int = ROUNDS, seed: int = 0
) -> dict[str, Any]:
    """Rank-1, the CMC and FNIR at FPIR 1e-1 and 1e-2, with 95 % over the probes' people.

    A mated search fails (FNIR) where its person is not the best or not strictly above the
    threshold, which is the lowest that FPIR of the searches without their person exceed; it is
    taken anew in each round. The galleries stay as they are. smallest_fpir: the lowest FPIR that 30
    people's searches stand behind."""
    people, place_Q = np.unique(person_Q, return_inverse=True)
    weights_RQ = draws(len(people), rounds=rounds, seed=seed)[:, place_Q]
    figures: dict[str, Any] = measured("rank_1", share(searches.rank_Q == 1, weights_RQ))
    figures["cmc"] = {str(rank): float((searches.rank_Q <= rank).mean()) for rank in RANKS}
    for suffix, fpir in FPIRS.items():
        fnir_R = np.empty(len(weights_RQ))
        for r, weights_Q in enumerate(weights_RQ):
            threshold = threshold_at(searches.stranger_Q, weights_Q, fpir)
            found = (searches.rank_Q == 1) & (searches.own_Q > threshold)
            fnir_R[r] = 1 - (weights_Q @ found) / weights_Q.sum()
        figures |= measured(f"fnir_at_fpir_{suffix}", fnir_R)
        figures[f"threshold_at_fpir_{suffix}"] = threshold_at(
            searches.stranger_Q, weights_RQ[0], fpir
        )
    figures["smallest_fpir"] = _smallest_fpir(searches.stranger_Q, person_Q)
    return figures


def _smallest_fpir(stranger_Q: NDArray[np.float32], person_Q: NDArray[np.int64]) -> float:
    """The share of searches at the 30th person's best, where so many people are; 1 where not."""
    best = np.sort([stranger_Q[person_Q == person].max() for person in np.unique(person_Q)])
    return float((stranger_Q >= best[-RULE_OF]).mean()) if len(best) >= RULE_OF else 1.0


def identification(
    embeddings_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    distractors_ED: NDArray[np.float32],
    distractor_E: NDArray[np.int64],
    *,
    sizes: tuple[int, ...] = (10, 50, 100),
    faces: int = 3,
    rounds: int = ROUNDS,
) -> list[dict[str, Any]]:
    """`rates` for each gallery: `sizes` of the labelled people, all of them, and all of them with
    the distractors.

    labels_N: in [0, people). distractors_ED: their enrolled faces; distractor_E: whose, in [0, D).
    Sizes that the people do not suffice for are left out."""
    people = int(labels_N.max()) + 1
    rows = enrolled_rows(labels_N, faces)
    probes, own = embeddings_ND[~rows], labels_N[~rows]
    if not len(probes):
        raise ValueError("identification needs a person with two crops or more")
    best = best_of_faces(probes, embeddings_ND[rows], labels_N[rows], people)
    figures = []
    for size in sorted({size for size in sizes if size < people} | {people}):
        found = rates(search(best, own, size), own, rounds=rounds)
        figures.append({"people": size, "distractors": 0, "probes": len(own), **found})
    if len(distractors_ED):
        others = int(distractor_E.max()) + 1
        more = best_of_faces(probes, distractors_ED, distractor_E, others)
        everyone = np.concatenate([best, more], axis=1)
        found = rates(search(everyone, own, people + others), own, rounds=rounds)
        figures.append({"people": people, "distractors": others, "probes": len(own), **found})
    return figures
