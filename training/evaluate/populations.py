"""Populations of strangers beside the calibration's people: FairFace's faces that training leaves
out, all of them and by the groups that a probe names.

FairFace's crops come without labels here. Race, sex and whether it is a child are predicted by a
linear probe on a teacher's embeddings, which is fitted to UTKFace's own labels and cross-validated
on them. A face counts for a group only where the probe is so sure of it that PRECISION of its
namings are right on UTKFace; the others count in the whole alone. So a group holds its more typical
faces, which are more alike, and its FMR errs on the careful side. Whoever is named a child counts
among the children, in no other group."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.calibration.measure import measure_population
from service.decision import (
    OWN_PEOPLE,
    WORST,
    Calibration,
    strictest,
    threshold_at,
    threshold_for_fmr,
)
from training.data.crops import Crops
from training.data.listing import rows
from training.data.pixels import Files, decode
from training.data.sets import is_kept_out
from training.evaluate.embeddings import Network
from training.evaluate.groups import ETHNICITIES, SEXES, false_matches, group_fmr, utkface_labels
from training.evaluate.probe import (
    cross_validate,
    fit_probe,
    least_sure,
    probabilities,
    whitened,
)

WHOLE: Final = "fairface"
TEACHER: Final = "teacher/edgeface_xs.onnx"
CHILD_YEARS: Final = 10  # a child is younger
CHILDREN: Final = "children"
PRECISION: Final = 0.85
FEWEST: Final = 50  # faces; a smaller group is left out
TARGET: Final = 1e-3
CORNERS: Final = tuple(f"{axis}{corner}" for corner in (1, 2, 3, 4) for axis in "xy")
TESTED: Final = (
    "3,150 faces of FairFace in data/groups, 450 of each of seven groups, with FairFace's own "
    "labels; nothing was trained, chosen or calibrated on them. Chips end inside the template: "
    "beyond their edges they are mirrored, and in `black` black."
)


@dataclass(frozen=True)
class Strangers:
    """Faces of whom nobody is there twice, and the rows of each population among them.

    facts: what is said of each population. probe: how well the groups are told, None where no
    groups are.
    """

    pixels_NHWC: NDArray[np.uint8]
    rows: Mapping[str, NDArray[np.int64]]
    facts: Mapping[str, Mapping[str, Any]]
    probe: Mapping[str, Any] | None


def find_strangers(
    people: Mapping[str, Crops], teacher: Network | None, say: Callable[[str], None]
) -> Strangers | None:
    """The strangers of identities/strangers; None without FairFace's faces that are kept out.

    people: the parts of identities/ that are there, for UTKFace's crops too. teacher: what the
    groups are told by; None: they are left out. say: told of what is left out.
    """
    if "strangers" not in people:
        return None
    crops = people["strangers"]
    kept_out = np.flatnonzero([is_kept_out(path) for path in crops.paths])
    if not len(kept_out):
        say("identities/strangers has no faces of FairFace: no populations are measured on them")
        return None
    pixels = np.asarray(crops.pixels_NHWC[kept_out])
    whole = {WHOLE: np.arange(len(kept_out))}
    facts = {WHOLE: {"data": "FairFace's faces that training leaves out", "predicted": False}}
    labelled = _labelled(people)
    if teacher is None or labelled is None:
        say(f"{TEACHER} or UTKFace's crops are not there: no groups are named")
        return Strangers(pixels, whole, facts, None)
    groups, probe = _named_groups(teacher, pixels, *labelled)
    for name, (found, precision) in groups.items():
        if len(found) < FEWEST:
            say(f"population {name}: {len(found)} faces, {FEWEST} are needed: it is left out")
            continue
        whole[name] = found
        facts[name] = {
            "data": f"those whom a probe names so; {precision:.0%} of so sure namings are right "
            "on UTKFace",
            "predicted": True,
        }
    return Strangers(pixels, whole, facts, probe)


def measure_populations(network: Network, strangers: Strangers) -> dict[str, dict[str, Any]]:
    """The `populations` of a calibration, as service.calibration.measure.with_populations takes."""
    embeddings_ND = network.embeddings(strangers.pixels_NHWC)
    return {
        name: {**strangers.facts[name], **measure_population(embeddings_ND[found])}
        for name, found in strangers.rows.items()
    }


def side_by_side(calibration: Calibration, target: float = TARGET) -> dict[str, dict[str, Any]]:
    """A row a population: its FMR at the calibration's threshold for a target, the threshold that
    keeps its own FMR at the target, and the FNMR of the calibration's people there."""
    cut = threshold_for_fmr(calibration, target).similarity
    shown = {}
    for one in (calibration, *calibration.populations.values()):
        at, own = threshold_at(one, cut), threshold_for_fmr(one, target)
        shown[one.population] = {
            "faces": one.crops,
            f"FMR at {cut:.3f}, the calibration's threshold": _told(at.target, *at.interval),
            f"threshold for {target:g}": round(own.similarity, 3),
            "FNMR there": _told(own.fnmr, *own.fnmr_interval),
        }
    return shown


def measure_groups(network: Network, folder: Path, calibration: Calibration) -> dict[str, Any]:
    """The FMR that comes of the calibration's thresholds among the test's faces, within each group.

    folder: groups.csv and crops.zip. At the threshold of the calibration's own people, and at that
    of the worst population, where there are others; faces mirrored beyond the chips' edges as they
    come, and with black there."""
    table = [
        row for _, row in rows(folder / "groups.csv", ("path", "race", "sex", "age", *CORNERS))
    ]
    files = Files(folder / "crops.zip")
    crops = np.stack([decode(files.read(row["path"]), row["path"]) for row in table])
    groups = {
        "race": np.array([row["race"] for row in table]),
        "sex": np.array([row["sex"] for row in table]),
        "age": np.array([row["age"] for row in table]),
    }
    figures: dict[str, Any] = {"data": TESTED, "target": TARGET, "thresholds": {}, "fmr": {}}
    black = np.stack([_blackened(crop, row) for crop, row in zip(crops, table, strict=True)])
    embeddings = {"mirrored": network.embeddings(crops), "black": network.embeddings(black)}
    for population in (OWN_PEOPLE, *([WORST] if calibration.populations else [])):
        found = strictest(calibration, population, lambda of: threshold_for_fmr(of, TARGET))
        figures["thresholds"][population] = {
            "similarity": found.similarity,
            "population": found.population,
            "fnmr": found.fnmr,
        }
        figures["fmr"][population] = {
            edge: group_fmr(false_matches(embeddings_ND, found.similarity), groups)
            for edge, embeddings_ND in embeddings.items()
        }
    return figures


def _blackened(crop: NDArray[np.uint8], row: Mapping[str, str]) -> NDArray[np.uint8]:
    """The crop with black beyond the four corners of the original chip."""
    corners = np.array([int(row[name]) for name in CORNERS], np.int32).reshape(4, 2)
    inside = cv2.fillConvexPoly(np.zeros(crop.shape[:2], np.uint8), corners, 1)
    return crop * inside[..., None]


def _labelled(
    people: Mapping[str, Crops],
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]] | None:
    """UTKFace's crops, and their labels by what is to be told; None where there are none."""
    pixels, labels = [], []
    for part in ("unlabelled", "strangers"):
        if part in people:
            found = [utkface_labels(path) for path in people[part].paths]
            places = np.flatnonzero([label is not None for label in found])
            pixels.append(np.asarray(people[part].pixels_NHWC[places]))
            labels += [label for label in found if label is not None]
    if not labels:
        return None
    age_N, sex_N, ethnicity_N = np.array(labels, np.int64).T
    told = {CHILDREN: (age_N < CHILD_YEARS).astype(np.int64), "sex": sex_N, "race": ethnicity_N}
    return np.concatenate(pixels), told


def _named_groups(
    teacher: Network,
    pixels_NHWC: NDArray[np.uint8],
    labelled_NHWC: NDArray[np.uint8],
    labels: Mapping[str, NDArray[np.int64]],
) -> tuple[dict[str, tuple[NDArray[np.int64], float]], dict[str, Any]]:
    """Rows and precision on UTKFace of each group, and how well the probe tells what."""
    known_NE, asked_ME = whitened(
        teacher.embeddings(labelled_NHWC), teacher.embeddings(pixels_NHWC)
    )
    classes = {CHILDREN: ("", CHILDREN), "sex": SEXES, "race": ETHNICITIES}
    groups: dict[str, tuple[NDArray[np.int64], float]] = {}
    accuracy = {}
    child_N = np.zeros(len(asked_ME), bool)
    for told, label_N in labels.items():
        names = classes[told]
        tried_NC = cross_validate(known_NE, label_N, len(names))
        guess_N = tried_NC.argmax(1)
        accuracy[told] = round(float((guess_N == label_N).mean()), 4)
        found_NC = probabilities(fit_probe(known_NE, label_N, len(names)), asked_ME)
        named_N = found_NC.argmax(1)
        for place, name in enumerate(names):
            ours = guess_N == place
            cut = least_sure(tried_NC[ours, place], (label_N == place)[ours], PRECISION)
            if not name or cut is None:
                continue
            chosen = (named_N == place) & (found_NC[:, place] >= cut[0]) & ~child_N
            groups[f"{WHOLE}-predicted-{name}"] = np.flatnonzero(chosen), cut[1]
        if told == CHILDREN:
            child_N = named_N == 1
    facts = {"fitted to": f"{len(known_NE):,} crops of UTKFace", "accuracy": accuracy}
    return groups, {"features": f"embeddings of {teacher.name}", **facts}


def _told(value: float, low: float, high: float) -> str:
    return f"{value:.3g} ({low:.3g} to {high:.3g})"
