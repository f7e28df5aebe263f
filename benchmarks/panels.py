"""Grafana's panels drawn by matplotlib, from what Prometheus answers to their queries.

Where Grafana draws them (gridPos), titled as there; the kinds that docker/grafana/panels.py makes.
It is no Grafana: no hovering, no choosing of a time, and units for the eye alone.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from benchmarks.prometheus import Prometheus

WINDOW: Final = "30s"  # of a rate, at a scrape every two seconds
STEPS, CELLS = 150, 60  # points of a line, columns of a heatmap
COLUMN_IN, ROW_IN = 0.74, 0.37
LETTER_IN, HANDLE_IN, LINE_IN = 0.057, 0.36, 0.135  # of a legend
INK, PALE, EDGE = "#24292f", "#6e7781", "#d8dee4"
COLOURS: Final = (
    *("#3274d9", "#e0752d", "#299c46", "#a352cc", "#c4162a", "#0aa3a3", "#b8860b"),
    *("#8f3bb8", "#5f6caf", "#7a5c3e"),
)
NAMED: Final = {"red": "#c4162a", "orange": "#e0752d", "green": "#299c46", "dark-red": "#7a0010"}
_SHOWN: Final = {"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": INK}


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and of what time; since 1970."""

    prometheus: Prometheus
    begin_s: float
    end_s: float

    def over(self, target: Mapping[str, Any], steps: int) -> list[dict[str, Any]]:
        step_s = max((self.end_s - self.begin_s) / steps, 1.0)
        query = target["expr"].replace("$__rate_interval", WINDOW)
        return self.prometheus.over(query, self.begin_s, self.end_s, step_s)

    def now(self, query: str) -> list[dict[str, Any]]:
        return self.prometheus.now(query.replace("$__rate_interval", WINDOW))


def picture(board: Mapping[str, Any], asking: Asking) -> Figure:
    """The dashboard of that JSON."""
    with mpl.rc_context(_SHOWN):
        rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"]) + 2
        figure = Figure((24 * COLUMN_IN, rows * ROW_IN), facecolor="white")
        figure.text(0.008, 1 - 1 / rows, board["title"], size=15, weight="bold", va="center")
        figure.text(0.992, 1 - 1 / rows, board["description"], color=PALE, ha="right", va="center")
        for panel in board["panels"]:
            _place(figure, panel, asking, rows)
        return figure


def _place(figure: Figure, panel: Mapping[str, Any], asking: Asking, rows: int) -> None:
    at = panel["gridPos"]
    left, top = at["x"] / 24, 1 - (at["y"] + 2) / rows
    width, height = at["w"] / 24, at["h"] / rows
    if panel["type"] == "row":
        figure.text(left + 0.008, top - height / 2, panel["title"], size=10.5, va="center")
        return
    gap_x, gap_y = 0.004, 0.16 / rows
    frame = FancyBboxPatch(
        (left + gap_x, top - height + gap_y),
        *(width - 2 * gap_x, height - 2 * gap_y),
        boxstyle="square,pad=0",
        facecolor="white",
        edgecolor=EDGE,
        transform=figure.transFigure,
        zorder=-1,
    )
    figure.add_artist(frame)
    title_y = top - 0.62 / rows
    figure.text(left + 0.011, title_y, panel["title"], size=8.5, weight="bold", va="center")
    below = 1.85 if panel["type"] in ("timeseries", "heatmap") else 0.4
    axes = figure.add_axes(
        (
            *(left + 0.042, top - height + below / rows),
            *(width - 0.058 - _right(panel), height - (below + 1.25) / rows),
        )
    )
    _KINDS[panel["type"]](axes, panel, asking)


def _right(panel: Mapping[str, Any]) -> float:
    """What an axis on the right takes."""
    return 0.03 if any(t["legendFormat"].startswith("right") for t in panel["targets"]) else 0.0


def _lines(axes: Axes, panel: Mapping[str, Any], asking: Asking) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    named = _series(panel, asking)
    _dress(axes, asking, _written(defaults["unit"]))
    dashed = re.compile(panel["fieldConfig"]["overrides"][0]["matcher"]["options"].strip("/"))
    right = None
    if any(name.startswith("right: ") for name in named):
        right = axes.twinx()
        right.spines[["top", "left", "bottom", "right"]].set_visible(False)
        right.yaxis.set_major_formatter(FuncFormatter(_written("short")))
        right.tick_params(length=0, colors=PALE)
    if custom["stacking"]["mode"] == "normal" and named:
        _stack(axes, named)
    else:
        colours = iter(COLOURS * 4)
        for name, (times, values) in named.items():
            style = "--" if dashed.search(name) else "-"
            target = right if right is not None and name.startswith("right: ") else axes
            target.plot(times, values, style, color=next(colours), linewidth=1.2, label=name)
    if custom["scaleDistribution"]["type"] == "log" and _any_positive(named):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_written(defaults["unit"])))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    elif axes.get_ylim()[0] >= 0:
        axes.set_ylim(0, 1.12 * max(axes.dataLim.y1, 1e-9))
    if defaults["unit"] == "bytes" and axes.get_yscale() == "linear":
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2((high - low) / 5))))
    _limits(axes, defaults)
    _legend(axes, right, empty=not named)


def _series(
    panel: Mapping[str, Any], asking: Asking
) -> dict[str, tuple[list[datetime], list[float]]]:
    """Times and values by the legend."""
    named = {}
    for target in panel["targets"]:
        for series in asking.over(target, STEPS):
            times = [_moment(t) for t, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            if not all(math.isnan(value) for value in values):
                named[_name(target["legendFormat"], series["metric"])] = (times, values)
    return named


def _name(legend: str, labels: Mapping[str, str]) -> str:
    name = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)
    return re.sub(r"127\.0\.0\.1:\d+", "mien:8000", name)


def _stack(axes: Axes, named: Mapping[str, tuple[list[datetime], list[float]]]) -> None:
    """Areas on each other, of all the times that any has."""
    times = sorted({time for moments, _ in named.values() for time in moments})
    rows = []
    for moments, values in named.values():
        known = dict(zip(moments, values, strict=True))
        rows.append([0.0 if math.isnan(known.get(t, 0.0)) else known.get(t, 0.0) for t in times])
    colours = (COLOURS * 4)[: len(rows)]
    axes.stackplot(times, rows, colors=colours, alpha=0.35, labels=list(named), linewidth=0)
    for total, colour in zip(np.cumsum(rows, axis=0), colours, strict=True):
        axes.plot(times, total, color=colour, linewidth=0.9)


def _any_positive(named: Mapping[str, tuple[list[datetime], list[float]]]) -> bool:
    return any(value > 0 for _, values in named.values() for value in values)


def _limits(axes: Axes, defaults: Mapping[str, Any]) -> None:
    """The limits that are not far above what was seen."""
    for step in defaults.get("thresholds", {}).get("steps", [])[1:]:
        if step["value"] < 3 * axes.get_ylim()[1]:
            axes.axhline(step["value"], color=NAMED[step["color"]], linewidth=0.9, linestyle=":")


def _dress(axes: Axes, asking: Asking, written: Callable[..., str]) -> None:
    axes.set_xlim(_moment(asking.begin_s), _moment(asking.end_s))
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=7))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.yaxis.set_major_formatter(FuncFormatter(written))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(color=EDGE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "left", "bottom", "right"]].set_visible(False)
    axes.tick_params(length=0, colors=PALE, which="both")
    axes.tick_params(axis="x", pad=5)


def _legend(axes: Axes, right: Axes | None, *, empty: bool) -> None:
    if empty:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no data here", transform=axes.transAxes, ha="center", color=PALE)
        return
    handles, labels = axes.get_legend_handles_labels()
    if right is not None:
        more, names = right.get_legend_handles_labels()
        handles, labels = handles + more, labels + names
    _flow(axes, handles, labels)


def _flow(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """The legend under the axes, one entry after the other and as many lines as it takes."""
    figure, box = axes.figure, axes.get_position()
    width_in, height_in = figure.get_size_inches()
    left_in, right_in = box.x0 * width_in - 0.45, box.x1 * width_in
    x_in, y_in = left_in, box.y0 * height_in - 0.32
    for handle, label in zip(handles, labels, strict=True):
        entry_in = HANDLE_IN + LETTER_IN * len(label)
        if x_in + entry_in > right_in and x_in > left_in:
            x_in, y_in = left_in, y_in - LINE_IN
        line = isinstance(handle, Line2D)
        style = {"color": handle.get_color(), "linestyle": handle.get_linestyle()} if line else {}
        if not line:
            style = {"color": handle.get_facecolor()[0], "linewidth": 4}
        ends = [x_in / width_in, (x_in + 0.16) / width_in]
        height = y_in / height_in
        figure.add_artist(Line2D(ends, [height] * 2, transform=figure.transFigure, **style))
        figure.text((x_in + 0.21) / width_in, height, label, size=6.8, va="center")
        x_in += entry_in


def _heatmap(axes: Axes, panel: Mapping[str, Any], asking: Asking) -> None:
    """Buckets as rows of one height, as Grafana draws them; as many as saw anything, and one."""
    series = asking.over(panel["targets"][0], CELLS)
    _dress(axes, asking, str)
    found = sorted((float(one["metric"]["le"]), one["values"]) for one in series)
    times = sorted({t for _, values in found for t, _ in values})
    if not times:
        _legend(axes, None, empty=True)
        return
    known = [dict(values) for _, values in found]
    below = np.array([[float(row.get(t, "nan")) for t in times] for row in known])
    counts = np.diff(np.nan_to_num(below), axis=0, prepend=0.0)
    seen = np.flatnonzero((counts > 1e-6).any(axis=1))
    if not len(seen):
        _legend(axes, None, empty=True)
        return
    first, last = max(seen[0] - 1, 0), min(seen[-1] + 1, len(found) - 1)
    shown = np.where(counts > 1e-6, counts, np.nan)[first : last + 1]
    step_s = times[1] - times[0] if len(times) > 1 else 1.0
    edges = [*(_moment(t - step_s) for t in times), _moment(times[-1])]
    rows = np.arange(last - first + 2)
    axes.pcolormesh(edges, rows, shown, cmap="Blues", vmin=0)
    written = _written(panel["options"]["yAxis"]["unit"])
    axes.set_yticks(rows[1:], [written(bound) for bound, _ in found[first : last + 1]])
    every = math.ceil((last - first + 1) / 9)
    for index, label in enumerate(axes.get_yticklabels()):
        label.set_visible(index % every == 0)
    axes.grid(visible=False)


def _number(axes: Axes, panel: Mapping[str, Any], asking: Asking) -> None:
    axes.axis("off")
    result = asking.now(panel["targets"][0]["expr"])
    defaults = panel["fieldConfig"]["defaults"]
    if not result:
        axes.text(0.45, 0.5, "no data", transform=axes.transAxes, ha="center", color=PALE)
        return
    value = float(result[0]["value"][1])
    if defaults["unit"] == "dateTimeFromNow":
        value = asking.end_s - value / 1000
    text = _written(defaults["unit"])(value)
    for mapping in defaults.get("mappings", []):
        text = mapping["options"].get(f"{value:g}", {"text": text})["text"]
    steps = defaults["thresholds"]["steps"]
    passed = [step for step in steps if step["value"] is None or value >= step["value"]]
    at = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.42, 0.55, text, size=19, color=NAMED[passed[-1]["color"]], **at)


def _table(axes: Axes, panel: Mapping[str, Any], asking: Asking) -> None:
    axes.axis("off")
    columns = panel["transformations"][0]["options"]["include"]["names"]
    found = [
        {**one["metric"], "Value": _short(float(one["value"][1]))}
        for one in asking.now(panel["targets"][0]["expr"])
    ]
    found.sort(key=lambda cells: cells[columns[-1]])
    rows = [[_name(cells.get(column, ""), {}) for column in columns] for cells in found]
    height = min(1.0, 0.15 * (1 + len(rows)))
    shape = {"bbox": (-0.08, 1 - height, 1.1, height), "cellLoc": "left", "edges": "horizontal"}
    made = axes.table([columns, *rows], **shape)
    made.auto_set_font_size(False)
    made.set_fontsize(8)
    for (row, _), cell in made.get_celld().items():
        cell.set_edgecolor(EDGE)
        cell.get_text().set_color(PALE if row == 0 else INK)


def _alerts(axes: Axes, _: Mapping[str, Any], asking: Asking) -> None:
    axes.axis("off")
    states = [(a["metric"]["alertstate"], a["metric"]["alertname"]) for a in asking.now("ALERTS")]
    for index, (state, name) in enumerate(sorted(set(states))):
        colour = NAMED["red" if state == "firing" else "orange"]
        axes.text(-0.05, 0.95 - 0.13 * index, f"● {state}", color=colour, size=8.5, va="top")
        axes.text(0.2, 0.95 - 0.13 * index, name, size=8.5, va="top")
    if not states:
        axes.text(0.5, 0.5, "none", ha="center", color=PALE)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


_KINDS: Final = {
    "timeseries": _lines,
    "heatmap": _heatmap,
    "stat": _number,
    "table": _table,
    "alertlist": _alerts,
}


def _written(unit: str) -> Callable[..., str]:
    """How a value of the unit is written."""
    return {"s": _seconds, "bytes": _bytes, "percentunit": _percent, "dateTimeFromNow": _ago}.get(
        unit, _short
    )


def _seconds(value: float, _: Any = None) -> str:
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if abs(value) * factor >= 1 or factor == 1e6:
            return f"{value * factor:.3g} {name}" if value else "0"
    return ""


def _bytes(value: float, _: Any = None) -> str:
    for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if abs(value) >= 2**power:
            return f"{value / 2**power:.3g} {name}"
    return f"{value:.3g} B"


def _percent(value: float, _: Any = None) -> str:
    return f"{value * 100:.4g} %" if abs(value) < 10 else f"{value * 100:.0f} %"


def _ago(value: float, _: Any = None) -> str:
    return f"{value / 60:.0f} min ago"


def _short(value: float, _: Any = None) -> str:
    if math.isinf(value):
        return "more"
    for factor, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value:.3g}"
