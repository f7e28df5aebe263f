"""All figures of recognition graphs, ours and peers', side by side.

Everything is measured on the graph that is served, by the service's own alignment. A set that is
not there is left out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.calibration.measure import measure_calibration, with_populations
from service.decision import Calibration, threshold_for_fmr
from training.data.crops import Crops, read_crops
from training.evaluate.embeddings import Network, open_networks
from training.evaluate.groups import false_matches, group_fmr, utkface_groups
from training.evaluate.identification import enrolled_rows, identification
from training.evaluate.pairs import (
    failing_pairs,
    pair_figures,
    require_both_kinds,
    similarities,
)
from training.evaluate.pairsets import PairSet, read_lfw, read_pair_set
from training.evaluate.populations import (
    TEACHER,
    Strangers,
    find_strangers,
    measure_groups,
    measure_populations,
)
from training.evaluate.verification import (
    error_curve,
    fnmr_at_fmr,
    pair_scores,
    require_pairs,
    verification,
)

FACES = 3  # of each person that are enrolled where identification is measured
PEOPLE = "identities/calibration"
GROUP_FMR = 1e-3
CARD = (  # what a card tells of LFW
    *("pairs", "accuracy", "standard_error", "equal_error_rate", "tar_at_far_1e2"),
    *("tar_at_far_1e3", "tar_at_far_1e3_low", "tar_at_far_1e3_high"),
)
SEEN = (
    "UTKFace's crops in identities/unlabelled, each taken for another person. The networks that "
    "this repository ships were distilled on a teacher's embeddings of these very crops; what a "
    "peer was trained on is not known. Sex, age and ethnicity are the set's own labels."
)
SEARCHED = (
    f"{PEOPLE}, of whom this repository's networks have seen no crop; a peer may have. "
    f"{FACES} faces of a person are enrolled and a person scores by the best of them; every other "
    "crop is searched for twice, in a gallery with its person and in one without (one person "
    "fewer where nobody else is left). Distractors are identities/train and identities/unlabelled, "
    "which the networks shipped here were trained on. Intervals: bootstrap over the probes' people."
)
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # (fmr_G, fnmr_G)


@dataclass(frozen=True)
class Measured:
    """One graph's figures, as figures.json holds them, and its error curves a set for the plots."""

    figures: dict[str, Any]
    curves: dict[str, Curve] = field(default_factory=dict)


def evaluate(
    graphs: Sequence[Path],
    data: Path,
    cache: Path,
    *,
    pairs: Sequence[str] = (),
    flip: bool = False,
    flip_raw: bool = False,
    threads: int = 2,
    say: Callable[[str], None] = print,
) -> list[Measured]:
    """What is measured of each graph, in their order.

    data: the folder with lfw/ and identities/. pairs: further sets, as pairsets.read_pair_set names
    them. flip: verify every set a second time, the mirror image's unit embedding added. flip_raw:
    so with embeddings as the network gives them, where a graph gives such. say: told what is
    measured and what is left out. Raises ValueError and FileNotFoundError for a graph or a set that
    cannot be read, before anything is measured, and ValueError where there is nothing to measure
    on."""
    networks = open_networks(graphs, cache, threads=threads, raw=flip_raw)
    people = _people_there(data / "identities", cache, say)
    sets = [read_lfw(data / "lfw")] if (data / "lfw").exists() else []
    if not sets:
        say(f"{data / 'lfw'} is not there: it is left out")
    sets += [read_pair_set(asked) for asked in pairs]
    _require_names(sets)
    for pair_set in sets:
        require_both_kinds(pair_set.pairs, pair_set.name)
    if not sets and not people:
        raise ValueError(f"{data} has neither lfw nor identities, and no --pairs were given")
    strangers = _strangers_there(people, data, cache, threads, say)
    found = []
    for network in networks:
        say(f"measuring {network.name}")
        measured = Measured(
            {"name": network.name, "graph": str(network.path), "sha256": network.sha256}
        )
        if flip_raw and not network.embed_raw:
            say(f"{network.name} gives unit embeddings alone: flip raw is left out")
        for pair_set in sets:
            _verify(network, pair_set, measured, flip=flip)
        _ask_people(network, people, strangers, measured)
        _ask_groups(network, data / "groups", measured, say)
        found.append(measured)
    return found


def _require_names(sets: Sequence[PairSet]) -> None:
    names = [pair_set.name for pair_set in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"--pairs: two sets are called {twice}")


def _people_there(folder: Path, cache: Path, say: Callable[[str], None]) -> dict[str, Crops]:
    there = {}
    for part in ("validation", "calibration", "train", "unlabelled", "strangers"):
        if (folder / f"{part}.csv").exists():
            there[part] = read_crops(folder / f"{part}.csv", cache)
            if part in ("validation", "calibration"):
                require_pairs(there[part].labels_N, f"{folder / part}.csv")
        else:
            say(f"{folder / part}.csv is not there: what is measured on it is left out")
    return there


def _strangers_there(
    people: Mapping[str, Crops], data: Path, cache: Path, threads: int, say: Callable[[str], None]
) -> Strangers | None:
    """The strangers on whom populations are measured, named by the teacher where it is there."""
    if "calibration" not in people or "strangers" not in people:
        return None
    teacher = data / TEACHER
    opened = open_networks([teacher], cache, threads=threads) if teacher.exists() else [None]
    return find_strangers(people, opened[0], say)


def _ask_groups(
    network: Network, folder: Path, measured: Measured, say: Callable[[str], None]
) -> None:
    """The FMR within the groups of a test set, at thresholds that were made without it."""
    if "calibration" not in measured.figures:
        return
    if not (folder / "groups.csv").exists():
        say(f"{folder / 'groups.csv'} is not there: what is measured on it is left out")
        return
    calibration = Calibration.from_manifest(measured.figures["calibration"])
    measured.figures["tested_groups"] = plain(measure_groups(network, folder, calibration))


def _verify(network: Network, pair_set: PairSet, measured: Measured, *, flip: bool) -> None:
    same = pair_set.pairs.same_P
    views = {pair_set.name: network.embeddings}
    if flip:
        views[f"{pair_set.name}, flip"] = network.flipped
    if network.embed_raw:
        views[f"{pair_set.name}, flip raw"] = network.flipped_raw
    for name, embeddings in views.items():
        similarity = similarities(embeddings(pair_set.pixels_NHWC), pair_set.pairs)
        figures = plain(pair_figures(similarity, pair_set.pairs))
        measured.figures.setdefault("verification", {})[name] = figures
        measured.curves[name] = error_curve(similarity[same], similarity[~same])
        if name == "LFW":
            on_card = {key: figures[key] for key in CARD}
            measured.figures.setdefault("metrics", {})["lfw"] = on_card
            measured.figures["lfw_failing_pairs"] = failing_pairs(similarity, pair_set.pairs)


def _ask_people(
    network: Network,
    people: Mapping[str, Crops],
    strangers: Strangers | None,
    measured: Measured,
) -> None:
    """What the parts of identities/ that are there tell."""
    embeddings = {
        part: network.embeddings(people[part].pixels_NHWC)
        for part in ("validation", "calibration")
        if part in people
    }
    figures = measured.figures
    if "validation" in people:
        chosen_on = verification(embeddings["validation"], people["validation"].labels_N)
        figures.setdefault("metrics", {})["validation"] = plain(asdict(chosen_on))
    if "calibration" not in people:
        return
    unseen, labels = embeddings["calibration"], people["calibration"].labels_N
    figures["calibration"] = {
        "data": f"{PEOPLE}: people in no training set",
        **measure_calibration(unseen, labels),
    }
    if strangers is not None:
        populations = measure_populations(network, strangers)
        figures["calibration"] = with_populations(figures["calibration"], populations)
        figures["probe"] = strangers.probe
    figures["fnmr_at_fmr"] = [plain(asdict(point)) for point in fnmr_at_fmr(unseen, labels)]
    measured.curves[PEOPLE] = error_curve(*pair_scores(unseen, labels))
    others = [people[part] for part in ("train", "unlabelled") if part in people]
    galleries = identification(unseen, labels, *_distractors(network, others), faces=FACES)
    figures["identification"] = {"protocol": SEARCHED, "galleries": plain(galleries)}
    utkface = people.get("unlabelled")
    if utkface is not None and any(utkface_groups(utkface.paths)["sex"]):  # else not UTKFace
        calibration = Calibration.from_manifest(figures["calibration"])
        figures["groups"] = _by_group(network, utkface, calibration)


def _distractors(
    network: Network, others: Sequence[Crops]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(faces_ED, person_E): some faces of each labelled person, and every crop without a name as a
    person of its own."""
    faces, persons, people = [], [], 0
    for part in others:
        named = part.labels_N >= 0
        rows = ~named
        rows[named] = enrolled_rows(part.labels_N[named], FACES)
        alone = len(part.people) + np.arange(len(part))
        labels = np.where(named, part.labels_N, alone)[rows]
        faces.append(network.embeddings(part.pixels_NHWC[rows]))
        persons.append(np.unique(labels, return_inverse=True)[1] + people)
        people = int(persons[-1].max()) + 1
    if not faces:
        return np.empty((0, 1), np.float32), np.empty(0, np.int64)
    return np.concatenate(faces), np.concatenate(persons)


def _by_group(network: Network, crops: Crops, calibration: Calibration) -> dict[str, Any]:
    threshold = threshold_for_fmr(calibration, GROUP_FMR)
    matched = false_matches(network.embeddings(crops.pixels_NHWC), threshold.similarity)
    return {
        "data": SEEN,
        "similarity": threshold.similarity,
        "fmr_on_calibration": threshold.target,
        "fmr": plain(group_fmr(matched, utkface_groups(crops.paths))),
    }


def plain(figures: Any, digits: int = 9) -> Any:
    """The figures as JSON can hold them, rounded; None for a number that is not finite."""
    if isinstance(figures, Mapping):
        return {key: plain(value, digits) for key, value in figures.items()}
    if isinstance(figures, (list, tuple)):
        return [plain(value, digits) for value in figures]
    if isinstance(figures, float):
        return round(figures, digits) if math.isfinite(figures) else None
    return figures
