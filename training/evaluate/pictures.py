"""The pictures of an expression or attribute graph's figures, as its card shows them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw_classifier(figures: Mapping[str, Any], folder: Path, suffix: str = "") -> dict[str, str]:
    """Every picture that there are figures for, in the folder; what each shows, by its file's name.

    figures: of one graph, as on_ferplus or on_celeba measure them. suffix: behind each name, so
    that several graphs' pictures may lie in one folder. matplotlib takes seconds to load: here
    alone."""
    from training.evaluate import plots

    said, [stated, *_] = {}, figures["metrics"]
    if "confusion" in figures:
        name = f"confusion{suffix}.png"
        classes = list(figures["expressions"])
        plots.draw_confusion(figures["confusion"], classes, stated, folder / name)
        said[name] = f"{stated}: which answer the faces of each expression got"
    error = figures["metrics"][stated]["expected_calibration_error"]
    name = f"reliability{suffix}.png"
    title = f"{stated}: expected calibration error {error:.4f}"
    plots.draw_reliability(figures["reliability"], title, folder / name)
    said[name] = f"{stated}: how often an answer of that confidence is right"
    if "face_size" in figures:
        name, sizes = f"face-size{suffix}.png", figures["face_size"]
        title = "faces made smaller"
        least = figures["min_inter_eye_px"]
        plots.draw_face_size(sizes["curves"], sizes["figure"], least, title, folder / name)
        said[name] = f"{sizes['figure'].replace('_', ' ')} by the size of the face"
    return said
