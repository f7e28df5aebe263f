"""The service's detector, opened for training."""

import shutil

import pytest

from training.detector import SHIPPED, open_detector


def test_a_graph_that_is_not_its_manifests_is_refused(tmp_path):
    folder = shutil.copytree(SHIPPED, tmp_path / "mtcnn")
    open_detector(folder)
    with (folder / "rnet.onnx").open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(ValueError, match=r"rnet\.onnx has the sha256 \w+; its manifest says"):
        open_detector(folder)
