"""The four dashboards, and what writes them: python docker/grafana/dashboards.py [FOLDER]

Writes one JSON file a dashboard into FOLDER, dashboards/ beside this file unless given, which
Grafana is provisioned with. docs/dashboards.md says how they are read; the metrics are in
docs/metrics.md, the recorded series (job:...) in docker/prometheus/rules.yml.
"""

import json
import sys
from pathlib import Path
from typing import Final

from boards import biometrics, machine, pipeline, service

BOARDS: Final = {
    "service": service,
    "pipeline": pipeline,
    "machine": machine,
    "biometrics": biometrics,
}


def write(folder: Path) -> None:
    """Writes every dashboard as NAME.json."""
    for name, module in BOARDS.items():
        text = json.dumps(module.board(), indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
