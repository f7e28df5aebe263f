"""service/gallery/index.py: FAISS over rows that come and go answers as brute force does."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.gallery.index import FIRST_FETCH, FaceIndex, Hit, Rows
from tests.service.gallery_contract import near, units

VECTORS = units(64, 0)
QUERIES = np.concatenate([units(5, 1), VECTORS[:3], -VECTORS[:1]])

Faces = dict[int, tuple[int, NDArray[np.float32]]]  # (person, embedding) by face number


def rows(faces: Iterable[tuple[int, int, NDArray[np.float32]]]) -> Rows:
    """Faces given as (number, person, embedding)."""
    numbers, persons, embeddings = zip(*faces, strict=True)
    return Rows(np.array(numbers, np.int64), np.array(persons, np.int64), np.stack(embeddings))


def index_of(faces: Faces) -> FaceIndex:
    index = FaceIndex()
    index.apply(rows((face, person, e) for face, (person, e) in faces.items()), [])
    return index


def brute_force(faces: Faces, query: NDArray[np.float32], top_k: int) -> list[Hit]:
    """The definition: each person's best face, the best top_k of these, ties by face number."""
    scored = sorted(
        (-float(np.float32(np.clip(np.dot(e.astype(float), query.astype(float)), -1, 1))), face)
        for face, (_, e) in faces.items()
    )
    best: dict[int, Hit] = {}
    for negative, face in scored:
        best.setdefault(faces[face][0], Hit(face, -negative))
    return list(best.values())[:top_k]


def assert_same(found: Sequence[Hit], expected: Sequence[Hit]) -> None:
    assert [hit.face for hit in found] == [hit.face for hit in expected]
    assert [h.similarity for h in found] == pytest.approx(
        [h.similarity for h in expected], abs=2e-7
    )


step = st.one_of(
    st.tuples(
        st.just("add"),
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 63)), min_size=1, max_size=9),
    ),
    st.tuples(st.just("remove"), st.lists(st.integers(1, 60), min_size=1, max_size=6)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=20), st.integers(1, 7))
def test_faces_that_come_and_go_leave_what_brute_force_finds(
    steps: list[tuple[str, list[int | tuple[int, int]]]], top_k: int
) -> None:
    index, faces, last = FaceIndex(), Faces(), 0
    for verb, items in steps:
        if verb == "add":
            new = Faces()
            for person, vector in items:
                last += 1
                new[last] = (person, VECTORS[vector])
            faces |= new
            index.apply(rows((f, p, e) for f, (p, e) in new.items()), [])
        else:
            index.apply(Rows.none(), items)
            faces = {f: face for f, face in faces.items() if f not in items}
        assert len(index) == len(faces)
        for query, found in zip(QUERIES, index.search(QUERIES, top_k), strict=True):
            assert_same(found, brute_force(faces, query, top_k))


def test_what_is_applied_twice_counts_once() -> None:
    index = index_of({1: (1, VECTORS[0]), 2: (1, VECTORS[1])})
    again = rows([(1, 1, VECTORS[0]), (3, 2, VECTORS[2])])
    for _ in range(2):
        index.apply(again, [2, 99], revision=7)
        assert (len(index), index.revision) == (2, 7)
        assert [h.face for h in index.search(VECTORS[2:3], 9)[0]] == [3, 1]


def test_it_is_indexflatip() -> None:
    index, flat = FaceIndex(), faiss.IndexFlatIP(512)
    vectors, queries = units(5000, 2), units(50, 3)
    index.apply(rows((n, n, e) for n, e in enumerate(vectors)), [])
    flat.add(vectors)
    _, expected = flat.search(queries, 10)
    assert [[h.face for h in found] for found in index.search(queries, 10)] == expected.tolist()


def test_a_query_alone_is_answered_as_among_others() -> None:
    index = index_of({n: (n // 3, e) for n, e in enumerate(units(2000, 4))})
    queries = units(70, 5)
    together = index.search(queries, 8)
    # Candidates are scored again row by row in float64, so that no other query's presence and no
    # processor's matrix product shows in a similarity.
    for size in (1, 2, 3, 19):
        parts = [queries[at : at + size] for at in range(0, len(queries), size)]
        assert [hits for part in parts for hits in index.search(part, 8)] == together


@pytest.mark.parametrize("crowd_size", [FIRST_FETCH - 1, FIRST_FETCH, 5000])
def test_a_crowd_of_near_identical_faces_of_one_person_hides_nobody(crowd_size: int) -> None:
    (query,) = units(1, 6)
    noise = np.random.default_rng(7).standard_normal((crowd_size, 512)).astype(np.float32)
    crowd = query + 1e-3 * noise
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    faces: Faces = {n: (0, e) for n, e in enumerate(crowd)}
    for n, cosine in enumerate((0.5, 0.4, 0.3), start=1):
        faces[10_000 + n] = (n, near(query, cosine, n))
    index = index_of(faces)
    for top_k in (1, 2, 3, 4, 9):
        assert_same(index.search(query[None], top_k)[0], brute_force(faces, query, top_k))


def test_more_equal_faces_than_are_fetched_at_once_go_by_their_numbers() -> None:
    same, other = units(2, 8)
    numbers = np.random.default_rng(9).permutation(3 * FIRST_FETCH)
    index = index_of({int(n): (int(n) + 5000, same) for n in numbers})
    index.apply(rows([(9999, 1, other)]), [])
    assert [h.face for h in index.search(same[None], 5)[0]] == [0, 1, 2, 3, 4]


def test_persons_whose_similarities_differ_by_less_than_float32_can_sum_are_in_order() -> None:
    (query,) = units(1, 10)
    faces: Faces = {
        n: (n, near(query, 0.5 + 1e-7 * (n % 7), 100 + n)) for n in range(2 * FIRST_FETCH)
    }
    index = index_of(faces)
    for top_k in (1, 3, 100):
        assert_same(index.search(query[None], top_k)[0], brute_force(faces, query, top_k))


def test_similarity_is_never_beyond_one() -> None:
    index = index_of(dict(enumerate((n, e) for n, e in enumerate(VECTORS))))
    found = [hits[0].similarity for hits in index.search(VECTORS, 1)]
    assert all(1 - 1e-6 < similarity <= 1 for similarity in found)
    opposite = index_of({1: (1, -VECTORS[0])}).search(VECTORS[:1], 1)[0][0].similarity
    assert -1 <= opposite < -1 + 1e-6


def test_a_removed_embedding_leaves_the_memory() -> None:
    index = index_of({n: (n, e) for n, e in enumerate(VECTORS[:10])})
    for gone in (9, 0, 4):  # the last row, the first, one between
        index.apply(Rows.none(), [gone])
        assert VECTORS[gone].tobytes() not in index._matrix_RD.tobytes()


def test_a_search_uses_the_threads_it_is_given_in_whatever_thread_it_runs() -> None:
    index = index_of({1: (1, VECTORS[0])})
    told: list[int] = []

    def in_a_fresh_thread() -> None:
        faiss.omp_set_num_threads(7)
        index.search(VECTORS[:1], 1)
        told.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=in_a_fresh_thread)
    thread.start()
    thread.join()
    assert told == [1]


def test_several_queries_go_through_one_matrix_product() -> None:
    FaceIndex()
    FaceIndex()  # asked twice, it says the same
    assert faiss.cvar.distance_compute_blas_threshold in (3, 3 * 512)


def test_searches_while_faces_come_and_go_see_whole_faces_only() -> None:
    steady, passing = units(200, 11), units(200, 12)
    index = index_of({n: (n, e) for n, e in enumerate(steady)})
    done = threading.Event()
    known = np.concatenate([steady, passing]).astype(float)

    def search_on(seed: int) -> int:
        rng, looked = np.random.default_rng(seed), 0
        while not done.is_set() or looked == 0:
            n = int(rng.integers(200))
            for query in (steady[n], passing[n]):
                (hits,) = index.search(query[None], 3)
                faces = [hit.face for hit in hits]
                assert len(set(faces)) == 3
                cosines = known[faces] @ query.astype(float)
                assert [h.similarity for h in hits] == pytest.approx(cosines.tolist(), abs=1e-6)
            assert index.search(steady[n][None], 1)[0][0].face == n
            looked += 1
        return looked

    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(search_on, seed) for seed in range(4)]
        try:
            for _ in range(5):
                for n, e in enumerate(passing, start=200):
                    index.apply(rows([(n, n, e)]), [])
                for n in range(200, 400):
                    index.apply(Rows.none(), [n])
        finally:
            done.set()
        assert all(search.result() > 0 for search in searches)
    assert len(index) == 200
