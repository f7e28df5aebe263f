"""What quality is worth to a recognition graph: error versus discard on LFW, by which it is judged,
and on the people of identities/validation, on whom scores and bounds were chosen."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.vision.align import align_crops
from service.vision.faces import Box, Face, Photograph
from service.vision.quality import BOUNDS, Quality, assess_face, checks
from training.data.crops import Crops
from training.detector import open_detector
from training.evaluate import lfw, spoilt
from training.evaluate.bootstrap import measured, share
from training.evaluate.discard import Comparisons, curve, gates, ideal
from training.evaluate.embeddings import Network
from training.evaluate.figures import plain
from training.evaluate.pairs import Pairs, read_pairs, similarities
from training.evaluate.spoilt import Spoiling, Spoilt
from training.evaluate.verification import pair_scores, threshold_at

FMR = 1e-3
LEVELS = ("standard", "strict")
# Components that a photograph cut to an aligned crop has lost.
_OF_THE_CUT = (
    *("inter_eye_distance", "head_pose_roll"),
    *("leftward_crop_of_the_face_image", "rightward_crop_of_the_face_image"),
    *("margin_above_of_the_face_image", "margin_below_of_the_face_image"),
    "face_area_cut_off",
)
PROBES = 2  # of each person that are spoilt
FEWEST = 100  # comparisons, below which a step of an angle is not told


def lfw_discards(network: Network, folder: Path) -> dict[str, Any]:
    """Error versus discard on LFW's pairs, at the threshold that an FMR of 1e-3 asks for there."""
    pairs = read_pairs(folder / "pairs.txt")
    crops, qualities = _lfw_faces(folder, pairs.names)
    similarity_P = similarities(network.embeddings(crops), pairs)
    other = similarity_P[~pairs.same_P]
    threshold = threshold_at(other, np.ones(len(other)), FMR)
    return _discards(qualities, _mated(pairs, similarity_P, threshold), threshold, left_out=())


def validation_discards(network: Network, people: Crops) -> dict[str, Any]:
    """The same on all pairs of crops of identities/validation; what a crop has lost is left out."""
    cascade = open_detector()
    seen = [spoilt.find(spoilt.in_photograph(crop), cascade) for crop in people.pixels_NHWC]
    there = np.array([one is not None for one in seen])
    embeddings = network.embeddings(people.pixels_NHWC)
    threshold = _threshold(embeddings, people.labels_N)
    embeddings, labels = embeddings[there], people.labels_N[there]
    a_P, b_P = np.triu_indices(len(labels), 1)
    mated = labels[a_P] == labels[b_P]
    a_P, b_P = a_P[mated], b_P[mated]
    missed_P = np.einsum("pd,pd->p", embeddings[a_P], embeddings[b_P]) <= threshold
    comparisons = Comparisons(a_P, b_P, labels[a_P], missed_P)
    qualities = [one[2] for one in seen if one is not None]
    figures = _discards(qualities, comparisons, threshold, left_out=_OF_THE_CUT)
    turned = {
        name: left_by_turn(np.array([getattr(q, name) for q in qualities]), comparisons)
        for name in ("head_pose_yaw", "head_pose_pitch")
    }
    return {**figures, "turned": plain(turned)}


def left_by_turn(degrees_N: NDArray[np.float64], comparisons: Comparisons) -> list[dict[str, Any]]:
    """What is left of true matches by the angle of the photograph that is turned more, in steps of
    5 degrees from 10 on, with 95 % over people; all is what those below 10 have."""
    turn_P = -comparisons.worse(-np.abs(degrees_N))
    weights_RP, matched_P = comparisons.weights(200), ~comparisons.missed_P
    straight = turn_P < 10
    whole_R = share(matched_P[straight], weights_RP[:, straight])
    rows = []
    for least in range(10, 90, 5):
        here = (turn_P >= least) & (turn_P < least + 5)
        if here.sum() >= FEWEST:
            left_R = share(matched_P[here], weights_RP[:, here]) / whole_R
            row = {"degrees": float(np.median(turn_P[here])), "comparisons": int(here.sum())}
            rows.append({**row, **measured("left", left_R)})
    return rows


def spoilt_matches(network: Network, people: Crops) -> dict[str, Any]:
    """What is left of true matches of the people of identities/validation when one of the two
    photographs is spoilt; `rows`, one for each spoiling: share left, share of faces found, and the
    10th, 50th and 90th percentile of the components that it is after."""
    labels, crops = people.labels_N, people.pixels_NHWC
    embeddings = network.embeddings(crops)
    threshold = _threshold(embeddings, labels)
    probes = _probes(labels)
    cascade = open_detector()

    def spoil(spoilings: Sequence[Spoiling]) -> tuple[Spoilt, NDArray[np.float64]]:
        """The spoilt photographs, and how many others of its person each of them matches."""
        found = spoilt.spoil_all([crops[i] for i in probes], spoilings, cascade, network.embeddings)
        of = probes[found.probe_S]
        same = (labels[of][:, None] == labels) & (of[:, None] != np.arange(len(labels)))
        return found, ((found.embeddings_SD @ embeddings.T > threshold) & same).sum(1)

    whole, matches = spoil([Spoiling("as they are", 0, lambda picture: picture)])
    before = np.zeros(len(probes))
    before[whole.probe_S] = matches
    rows = []
    for components, spoilings in spoilt.SPOILINGS.items():
        found, matches = spoil(spoilings)
        for way, spoiling in enumerate(spoilings):
            mine = np.flatnonzero(found.way_S == way)
            of = found.probe_S[mine]
            values = {
                component: np.percentile(
                    [getattr(found.quality[i], component) for i in mine], (10, 50, 90)
                ).tolist()
                for component in components
            }
            left = spoilt.left_of_matches(matches[mine], before[of], labels[probes[of]])
            found_share = {"found": len(mine) / len(probes)}
            name = {"kind": spoiling.kind, "strength": spoiling.strength}
            rows.append({**name, **found_share, **left, "values": values})
    return plain({"similarity": threshold, "photographs": len(probes), "rows": rows})


def _probes(labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """PROBES photographs of each person, drawn."""
    rng = np.random.default_rng(0)
    of = (np.flatnonzero(labels_N == person) for person in range(int(labels_N.max()) + 1))
    return np.concatenate([rng.choice(photographs, PROBES, replace=False) for photographs in of])


def _lfw_faces(folder: Path, names: Sequence[str]) -> tuple[NDArray[np.uint8], list[Quality]]:
    """The aligned crops and the qualities, by the set's own landmarks."""
    face_at: Callable[[int], Any] = lfw.faces(folder, names)
    crops, qualities = np.empty((len(names), 112, 112, 3), np.uint8), []
    for i in range(len(names)):
        rgb, landmarks = face_at(i)
        photograph = Photograph(np.ascontiguousarray(rgb))
        box = Box(0, 0, photograph.width, photograph.height)
        crops[i] = align_crops(photograph, [landmarks])[0]
        qualities.append(assess_face(photograph, Face(box, 1.0, landmarks), crops[i]))
    return crops, qualities


def _mated(pairs: Pairs, similarity_P: NDArray[np.float64], threshold: float) -> Comparisons:
    same = pairs.same_P
    who = [pairs.photographs[place][0] for place in pairs.a_P[same]]
    persons = np.unique(who, return_inverse=True)[1]
    return Comparisons(pairs.a_P[same], pairs.b_P[same], persons, similarity_P[same] <= threshold)


def _threshold(embeddings_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    _, other = pair_scores(embeddings_ND, labels_N)
    return threshold_at(other, np.ones(len(other)), FMR)


def _discards(
    qualities: Sequence[Quality],
    comparisons: Comparisons,
    threshold: float,
    *,
    left_out: Sequence[str],
) -> dict[str, Any]:
    rows = [asdict(quality) for quality in qualities]
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    shown = [field.name for field in fields(Quality) if field.name not in left_out]
    passed = {
        level: np.array(
            [all(c.passed for c in checks(q, level) if c.component in shown) for q in qualities]
        )
        for level in LEVELS
    }
    alone = {
        level: {
            name: float(
                np.mean([not _passes(value, *BOUNDS[level][name]) for value in values[name]])
            )
            for name in BOUNDS[level]
            if name in shown
        }
        for level in LEVELS
    }
    return plain(
        {
            "comparisons": len(comparisons.missed_P),
            "people": len(np.unique(comparisons.person_P)),
            "photographs": len(rows),
            "fmr": FMR,
            "similarity": threshold,
            "fnmr": float(comparisons.missed_P.mean()),
            "percentiles": {
                name: np.percentile(values[name], (1, 5, 50, 95, 99)).tolist() for name in shown
            },
            "ideal": ideal(comparisons),
            "curves": {name: curve(_worth(name, values[name]), comparisons) for name in shown},
            "gates": gates(passed, comparisons),
            "photographs_refused_by": alone,
        }
    )


def _passes(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _worth(name: str, values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values such that more is better."""
    if name.startswith("head_pose") or name == "face_area_cut_off":
        return -np.abs(values_N)
    return -np.abs(values_N - 0.5) if name == "luminance_mean" else values_N
