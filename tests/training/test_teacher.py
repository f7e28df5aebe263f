"""Teachers asked side by side, and what a narrower student is to say of their answers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.standin import recognition_graph
from tests.training.crops import drawn_crops
from tests.training.peers import peer
from training.graphs import open_graph
from training.teacher import Target, open_teachers

CROPS = drawn_crops(people=3, each=4).pixels_NHWC


def answers(count: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return F.normalize(torch.from_numpy(rng.normal(size=(count, width)).astype(np.float32)))


def test_two_teachers_answer_side_by_side_and_the_cosine_is_the_mean_of_theirs(tmp_path):
    ours = tmp_path / "ours.onnx"
    ours.write_bytes(recognition_graph())
    graphs = [ours, peer(tmp_path / "peer.onnx")]
    found = open_teachers(graphs)(CROPS)
    alone = [open_graph(path)(CROPS) for path in graphs]
    assert found.shape[1] == sum(rows.shape[1] for rows in alone)
    mean = np.mean([rows @ rows.T for rows in alone], axis=0)
    np.testing.assert_allclose(found @ found.T, mean, atol=1e-5)


def test_a_projection_keeps_the_cosines_of_the_answers_that_it_was_fitted_on():
    hidden = answers(40, 6)  # six directions in twenty numbers
    mixed = F.normalize(hidden @ answers(6, 20, seed=1))
    target = Target(20, 8)
    target.fit(mixed, None)
    torch.testing.assert_close(target(mixed) @ target(mixed).T, mixed @ mixed.T, atol=1e-5, rtol=0)


def test_a_warmed_student_is_asked_for_what_it_says_already_up_to_a_rotation():
    said = answers(60, 8)
    turned = torch.linalg.qr(answers(8, 8, seed=1)).Q
    target = Target(8, 8)
    target.fit(said @ turned, said)
    torch.testing.assert_close(target(said @ turned), said, atol=1e-5, rtol=0)


def test_answers_as_wide_as_the_student_are_taken_as_they_are():
    target = Target(8, 8)
    target.fit(answers(5, 8), None)
    torch.testing.assert_close(target(answers(5, 8)), answers(5, 8))


def test_a_teacher_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        open_teachers([tmp_path / "absent.onnx"])
