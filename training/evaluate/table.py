"""Figures of several graphs as one table: a line a measure, a column a graph."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.decision import Calibration, threshold_at, threshold_for_fmr

Cells = dict[str, str]  # measure to what a graph's column says

FOOTNOTES = (
    "In brackets 95 %, from a bootstrap over people (over pairs for TAR@FAR). "
    "\\* fewer than 30 errors stand behind the rate that the figure is given at; - where there are "
    "too few non-mated pairs for the rate to be shown at all."
)

FLIPS = {  # by how a set's name ends
    "flip": "flip: a crop's unit embedding and its mirror image's are added.",
    "flip raw": "flip raw: both are added as the network gives them, before they are made unit "
    "length: the way of InsightFace and CurricularFace.",
}


def table(graphs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of graphs' figures, as figures.evaluate measures them."""
    lines = _lines(graphs, [_cells(figures) for figures in graphs])
    return "\n".join([*lines, "", FOOTNOTES, *_notes(graphs)]) + "\n"


def classifier_table(graphs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of classifiers' figures: a line a figure of each set in `metrics`, a column a graph.

    In brackets 95 %, from a bootstrap over faces."""
    columns = [
        {
            f"{name}, {figure.replace('_', ' ')}": _figure(row, figure)
            for name, row in figures["metrics"].items()
            for figure in row
            if not figure.endswith(("_low", "_high"))
        }
        for figures in graphs
    ]
    for cells, figures in zip(columns, graphs, strict=True):
        if "min_inter_eye_px" in figures:
            cells["smallest face, pixels between the eyes"] = f"{figures['min_inter_eye_px']:g}"
    footnote = "In brackets 95 %, from a bootstrap over faces."
    return "\n".join([*_lines(graphs, columns), "", footnote]) + "\n"


def _figure(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None or isinstance(row[name], int):
        return str(row[name])
    return _rate(row, name, few=False) if f"{name}_low" in row else _percent(row[name])


def _lines(graphs: Sequence[Mapping[str, Any]], columns: Sequence[Cells]) -> list[str]:
    measures = list(dict.fromkeys(measure for cells in columns for measure in cells))
    names = [str(figures["name"]).replace("|", "\\|") for figures in graphs]
    rows = [["", *names], ["---"] * (len(names) + 1)]
    rows += [[measure, *(cells.get(measure, "") for cells in columns)] for measure in measures]
    return [f"| {' | '.join(row)} |" for row in rows]


def _cells(figures: Mapping[str, Any]) -> Cells:
    cells: Cells = {}
    for name, found in figures.get("verification", {}).items():
        cells |= _verification_cells(name, found)
    for point in figures.get("fnmr_at_fmr", []):
        few = point["pairs_of_people"] < 30
        cells[f"FNMR @ FMR {point['fmr']:g}, unseen people"] = _rate(point, "fnmr", few=few)
    for gallery in figures.get("identification", {}).get("galleries", []):
        cells |= _gallery_cells(gallery)
    for attribute, groups in figures.get("groups", {}).get("fmr", {}).items():
        if "across" in attribute or " and " in attribute:
            continue  # figures.json has them; a table of everything is read by nobody
        for group, found in groups.items():
            if "fmr" in found:
                label = "all" if attribute == "all" else f"{attribute} {group}"
                title = f"FMR among strangers, {label} ({found['people']})"
                cells[title] = _rate(found, "fmr", few=found["false_matches"] < 30)
    for name, row in _populations(figures).items():
        cells[f"FMR of population {name} at the unseen people's threshold for 0.001"] = row
    tested = figures.get("tested_groups", {"thresholds": {}})
    for population, cut in tested["thresholds"].items():
        for group, found in tested["fmr"][population]["mirrored"]["race"].items():
            if "fmr" in found:
                title = f"FMR in data/groups at population={population}, target 0.001, {group}"
                cells[title] = _rate(found, "fmr", few=found["false_matches"] < 30)
        cells[f"FNMR of the unseen people at population={population}"] = _percent(cut["fnmr"])
    return cells


def _populations(figures: Mapping[str, Any]) -> dict[str, str]:
    """A population's FMR, with its interval, where the calibration has others than its people."""
    if not figures.get("calibration", {}).get("populations"):
        return {}
    calibration = Calibration.from_manifest(figures["calibration"])
    cut = threshold_for_fmr(calibration, 1e-3).similarity
    found = {}
    for name, one in calibration.populations.items():
        at = threshold_at(one, cut)
        low, high = (_percent(rate, sign="") for rate in at.interval)
        few = " \\*" if at.extrapolated else ""
        found[name] = f"{_percent(at.target)} [{low}, {high}]{few}"
    return found


def _verification_cells(name: str, found: Mapping[str, Any]) -> Cells:
    error = found["standard_error"]
    spread = "" if error is None else f" ± {_percent(error)}"
    cells = {f"{name} accuracy": f"{_percent(found['accuracy'])}{spread}"}
    for power in (1, 2, 3, 4):
        few = found["smallest_far"] > 10**-power * (1 + 1e-9)
        title = f"{name} TAR @ FAR 1e-{power}"
        cells[title] = _rate(found, f"tar_at_far_1e{power}", few=few)
    return cells | {f"{name} EER": _percent(found["equal_error_rate"])}


def _gallery_cells(gallery: Mapping[str, Any]) -> Cells:
    people = f"{gallery['people'] + gallery['distractors']:,} enrolled"
    cells = {f"rank-1, {people}": _rate(gallery, "rank_1", few=False)}
    for power in (1, 2):
        few = gallery["smallest_fpir"] > 10**-power
        title = f"FNIR @ FPIR 1e-{power}, {people}"
        cells[title] = _rate(gallery, f"fnir_at_fpir_1e{power}", few=few)
    return cells


def _rate(found: Mapping[str, Any], name: str, *, few: bool) -> str:
    if found[name] is None:
        return "-"
    low, high = (
        "?" if found[name + end] is None else _percent(found[name + end], sign="")
        for end in ("_low", "_high")
    )
    return f"{_percent(found[name])} [{low}, {high}]" + (" \\*" if few else "")


def _percent(value: float, sign: str = " %") -> str:
    """Two decimals, more for a rate under a tenth of a per cent."""
    text = f"{100 * value:.3g}" if 0 < value < 1e-3 else f"{100 * value:.2f}"
    return f"{text}{sign}"


def _kinds(figures: Mapping[str, Any]) -> set[str]:
    return {name.rpartition(", ")[2] for name in figures.get("verification", {})}


def _notes(graphs: Sequence[Mapping[str, Any]]) -> list[str]:
    first = graphs[0]
    notes = [
        text for kind, text in FLIPS.items() if any(kind in _kinds(figures) for figures in graphs)
    ]
    notes += [
        f"{name}: {found['unsupported']}."
        for name, found in first.get("verification", {}).items()
        if "unsupported" in found
    ]
    if "identification" in first:
        notes.append(f"Identification: {first['identification']['protocol']}")
    if "groups" in first:
        notes.append(
            "Groups: each graph at its own threshold for FMR "
            f"{first['groups']['fmr_on_calibration']:g} on the unseen people. "
            f"{first['groups']['data']}"
        )
    return [line for note in notes for line in ("", note)]
