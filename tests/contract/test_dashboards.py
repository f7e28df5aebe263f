"""The rules of Prometheus and the dashboards: what they promise, and that the docs keep up."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from service.api.problems import OF_SLUG
from tests.promtool import needs_promtool

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
BOARDS = GRAFANA / "dashboards"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@needs_promtool
def test_every_alert_fires_where_it_should_and_nowhere_else() -> None:
    said = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_alert_is_tried_both_ways() -> None:
    cases = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    tried = [one for case in cases for one in case.get("alert_rule_test", [])]
    assert {one["alertname"] for one in tried if one["exp_alerts"]} == set(alerts())
    assert {one["alertname"] for one in tried if not one["exp_alerts"]} == set(alerts())


def test_every_alert_says_what_it_is_and_where_to_read_on() -> None:
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("page", "ticket"), name
        told = alert["annotations"]
        assert set(told) == {"summary", "description", "runbook"}, name
        assert told["runbook"] == f"docs/alerts.md#{name.lower()}"


def test_every_alert_has_its_page_and_nothing_else_has() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    pages = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [page.split("\n")[0] for page in pages] == list(alerts())
    for page in pages:
        name = page.split("\n")[0]
        assert f"*{alerts()[name]['labels']['severity'].title()}" in page, name
        assert "**See" in page, name
        assert "**Do:**" in page or "**See and do:**" in page, name
    anchors = set(re.findall(r"\(#(\w+)\)", text))
    assert anchors <= {name.lower() for name in alerts()}


def test_the_reasons_that_rules_ask_for_are_problems() -> None:
    for name, alert in alerts().items():
        for pattern in re.findall(r'reason=~"([^"]+)"', alert["expr"]):
            for part in pattern.split("|"):
                assert any(re.fullmatch(part, slug) for slug in OF_SLUG), (name, part)


def test_the_dashboards_are_what_their_script_writes(tmp_path: Path) -> None:
    """Change docker/grafana/boards, run docker/grafana/dashboards.py, commit both."""
    subprocess.run([sys.executable, GRAFANA / "dashboards.py", tmp_path], check=True)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in BOARDS.iterdir()}


def test_panels_have_a_place_a_text_and_the_provisioned_source() -> None:
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    for board in boards():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not taken & cells, panel["title"]
            assert max(x for x, _ in cells) < 24, panel["title"]
            taken |= cells
            if panel["type"] != "row":
                assert panel["description"].endswith("."), panel["title"]
                assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]


def test_every_dashboard_and_panel_is_documented_and_nothing_else_is() -> None:
    text = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    pages = {page.split("\n")[0]: page for page in re.split(r"^## ", text, flags=re.MULTILINE)}
    for board in boards():
        page = pages[board["title"]]
        panels = [panel["title"] for panel in board["panels"] if panel["type"] != "row"]
        assert len(panels) == len(set(panels))
        assert re.findall(r"^\| \*\*(.+?)\*\* \|", page, flags=re.MULTILINE) == panels
        assert f"pictures/dashboard-{board['uid'].removeprefix('mien-')}.png" in page


def test_alerts_name_panels_and_dashboards_that_there_are() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    titles = {board["title"] for board in boards()}
    panels = {panel["title"] for board in boards() for panel in board["panels"]}
    named = re.findall(r"\*(Mien: \w+)\*", text)
    assert named
    assert set(named) <= titles
    for line in re.findall(r"dashboard \*Mien:.*", text):
        assert set(re.findall(r'"([A-Z][^"]+)"', line)) <= panels, line


def boards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(BOARDS.iterdir())]
