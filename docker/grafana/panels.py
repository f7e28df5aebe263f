"""Grafana's panels, each in a line or two: what a dashboard of dashboards.py is made of.

A panel asks Prometheus by `queries`: expressions by the legend of their series, in which
{{label}} stands for a label's value. `text` is what the panel's (i) says. Widths are in
Grafana's 24 columns; panels stand side by side as long as they fit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

COLUMNS: Final = 24
SOURCE: Final = {
    "type": "prometheus",
    "uid": "mien-prometheus",
}  # as provisioning/datasources has it
DASHED: Final = "/^(calibration|limit|week|allowed)/"  # legends of what is seen against what
_UNITS_OF_A_SHARE: Final = ("percentunit",)

Json = dict[str, Any]


def lines(
    title: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    text: str,
    width: int = 8,
    stacked: bool = False,
    limits: Sequence[float] = (),
    log: bool = False,
    right: str = "",
) -> Json:
    """Series over time. limits: values that are drawn as lines. right: the unit of an axis on the
    right, for the legends that begin with "right: "."""
    custom: Json = {
        "fillOpacity": 25 if stacked else 0,
        "lineWidth": 1,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
    }
    defaults: Json = {"unit": unit, "custom": custom}
    if unit in _UNITS_OF_A_SHARE:
        defaults["min"] = 0
    if limits:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = _thresholds(limits)
    dash = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 6]}}
    overrides = [{"matcher": {"id": "byRegexp", "options": DASHED}, "properties": [dash]}]
    if right:
        axis = [{"id": "unit", "value": right}, {"id": "custom.axisPlacement", "value": "right"}]
        overrides.append(
            {"matcher": {"id": "byRegexp", "options": "/^right: /"}, "properties": axis}
        )
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, text, width, 8, queries, defaults, overrides, options)


def heatmap(title: str, unit: str, histogram: str, *, text: str, width: int = 8) -> Json:
    """How a histogram's observations lie, over time. histogram: the selector of its buckets."""
    queries = {"{{le}}": f"sum by (le) (increase({histogram}[$__rate_interval]))"}
    options = {
        "calculate": False,
        "cellGap": 0,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "fill": "dark-blue"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": False},
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"unit": unit, "axisPlacement": "left"},
    }
    panel = _panel("heatmap", title, text, width, 8, queries, {}, [], options)
    for target in panel["targets"]:
        target["format"] = "heatmap"
    return panel


def number(
    title: str,
    unit: str,
    query: str,
    *,
    text: str,
    width: int = 4,
    steps: Sequence[float] = (),
    names: Mapping[str, str] | None = None,
) -> Json:
    """The value of now. steps: red below the first, orange below the second, green from there."""
    defaults: Json = {"unit": unit, "decimals": 2 if unit == "percentunit" else None}
    colours = ("red", "orange", "green")[-1 - len(steps) :]
    bounds = (None, *steps)
    defaults["thresholds"] = {
        "mode": "absolute",
        "steps": [{"color": c, "value": v} for c, v in zip(colours, bounds, strict=True)],
    }
    if names:
        values = {
            value: {"text": name, "index": i} for i, (value, name) in enumerate(names.items())
        }
        defaults["mappings"] = [{"type": "value", "options": values}]
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    panel = _panel("stat", title, text, width, 4, {"": query}, defaults, [], options)
    panel["targets"][0]["instant"] = True
    return panel


def table(title: str, query: str, columns: Sequence[str], *, text: str, width: int = 8) -> Json:
    """The series of now, a row each, by the last column: `columns` are labels, or "Value"."""
    options = {"showHeader": True, "sortBy": [{"displayName": columns[-1], "desc": False}]}
    panel = _panel("table", title, text, width, 8, {"": query}, {}, [], options)
    panel["targets"][0] |= {"instant": True, "format": "table"}
    panel["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {
            "id": "organize",
            "options": {"indexByName": {name: i for i, name in enumerate(columns)}},
        },
    ]
    return panel


def alerts(title: str, *, text: str, width: int = 8) -> Json:
    """The alerts of Prometheus that are pending or fire."""
    options = {
        "viewMode": "list",
        "groupMode": "default",
        "datasource": "Prometheus",
        "stateFilter": {"firing": True, "pending": True, "error": True},
    }
    return _panel("alertlist", title, text, width, 8, {}, {}, [], options)


def dashboard(
    uid: str, title: str, text: str, rows: Mapping[str, Sequence[Json]], *, hours: int
) -> Json:
    """A dashboard of rows of panels. hours: what it shows at first."""
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["mien"],
        "editable": False,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": f"now-{hours}h", "to": "now"},
        "timezone": "",
        "links": [
            {
                "type": "dashboards",
                "title": "Mien",
                "tags": ["mien"],
                "keepTime": True,
                "asDropdown": False,
            }
        ],
        "annotations": {"list": []},
        "templating": {"list": []},
        "panels": _laid_out(rows),
    }


def _panel(
    kind: str,
    title: str,
    text: str,
    width: int,
    height: int,
    queries: Mapping[str, str],
    defaults: Json,
    overrides: list[Json],
    options: Json,
) -> Json:
    targets = [
        {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
        for i, (legend, expr) in enumerate(queries.items())
    ]
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "gridPos": {"h": height, "w": width},
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": options,
    }


def _thresholds(limits: Sequence[float]) -> Json:
    steps = [{"color": "transparent", "value": None}]
    colours = ("orange", "red", "dark-red")
    steps += [{"color": c, "value": v} for c, v in zip(colours, sorted(limits), strict=False)]
    return {"mode": "absolute", "steps": steps}


def _laid_out(rows: Mapping[str, Sequence[Json]]) -> list[Json]:
    """The panels under their rows' headings, each with its id and place."""
    placed: list[Json] = []
    y = 0
    for title, panels in rows.items():
        heading = {"type": "row", "title": title, "collapsed": False, "panels": []}
        placed.append({**heading, "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}})
        x, tallest, y = 0, 0, y + 1
        for panel in panels:
            size = panel["gridPos"]
            if x + size["w"] > COLUMNS:
                x, tallest, y = 0, 0, y + tallest
            placed.append({**panel, "gridPos": {**size, "x": x, "y": y}})
            x, tallest = x + size["w"], max(tallest, size["h"])
        y += tallest
    return [{"id": index + 1, **panel} for index, panel in enumerate(placed)]
