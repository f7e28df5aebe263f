"""Plots say what they are given; those of the verb are tried in test_figures."""

import cv2
import numpy as np
import pytest

from training.evaluate import plots
from training.evaluate.verification import error_curve


def normal_curve(distance: float):
    rng = np.random.default_rng(0)
    return error_curve(rng.normal(distance, 1, 20_000), rng.normal(0, 1, 20_000))


def shown(path) -> bool:
    return cv2.imread(str(path)).std() > 5


def test_scores_that_are_normally_distributed_make_a_straight_det_line(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots.pyplot, "close", drawn.append)
    plots.draw_det({"one": normal_curve(2), "two": normal_curve(3)}, "", tmp_path / "det.png")
    monkeypatch.undo()
    for line, distance in zip(drawn[0].axes[0].lines, (2, 3), strict=False):
        x, y = line.get_xydata().T
        middle = (np.abs(x) < 2) & (np.abs(y) < 2)
        slope, offset = np.polyfit(x[middle], y[middle], 1)
        assert (slope, offset) == pytest.approx((-1, -distance), abs=0.05)
    plots.pyplot.close(drawn[0])


def test_a_network_without_errors_has_plots_too(tmp_path):
    perfect = error_curve(np.full(50, 0.9), np.linspace(0, 0.5, 200))
    plots.draw_det({"perfect": perfect}, "", tmp_path / "det.png")
    plots.draw_roc({"perfect": perfect}, "", tmp_path / "roc.png")
    assert shown(tmp_path / "det.png")
    assert shown(tmp_path / "roc.png")


def test_groups_without_a_rate_are_left_out(tmp_path):
    row = {"people": 40, "fmr": 1e-3, "fmr_low": 5e-4, "fmr_high": 2e-3}
    few, none = {"people": 12, "false_matches": 0}, {**row, "fmr": 0.0}
    plots.draw_groups({"a": row, "few": few, "none": none}, "", tmp_path / "groups.png")
    plots.draw_groups({"few": few}, "", tmp_path / "nothing.png")
    assert shown(tmp_path / "groups.png")
    assert shown(tmp_path / "nothing.png")


def test_confusion_and_reliability_are_drawn(tmp_path):
    plots.draw_confusion([[30, 2], [0, 0]], ("calm", "angry"), "", tmp_path / "confusion.png")
    points = [{"confidence": 0.7, "accuracy": 0.6, "count": 10}]
    plots.draw_reliability(points, "", tmp_path / "deeper" / "reliability.png")
    assert shown(tmp_path / "confusion.png")
    assert shown(tmp_path / "deeper" / "reliability.png")
