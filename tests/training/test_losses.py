"""Losses against values computed another way, in float64, and against the papers' limit cases."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training.losses import (
    cosine_distillation,
    cosines,
    curricular_cosines,
    curricular_t,
    with_angular_margin,
)

LABELS = torch.tensor([2, 0, 4])


@pytest.fixture(name="cosines_BC")
def _cosines() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 5, dtype=torch.float64) * 1.8 - 0.9


def reference(cosines_BC: np.ndarray, labels_B: np.ndarray, t: float, margin: float) -> np.ndarray:
    """CurricularFace by angles, one number at a time."""
    out = cosines_BC.copy()
    for row, label in enumerate(labels_B):
        theta = math.acos(cosines_BC[row, label])
        border = math.cos(theta + margin)
        for j, c in enumerate(cosines_BC[row]):
            if j == label:
                beyond = theta + margin > math.pi
                out[row, j] = c - margin * math.sin(margin) if beyond else border
            elif c > border:
                out[row, j] = c * (t + c)
    return out


@pytest.mark.parametrize("t", [0.0, 0.3, 0.9])
def test_curricular_cosines_are_those_of_the_paper(cosines_BC, t):
    got = curricular_cosines(cosines_BC, LABELS, torch.tensor(t, dtype=torch.float64))
    wanted = reference(cosines_BC.numpy(), LABELS.numpy(), t, 0.5)
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-12)


def test_without_a_hard_class_curricularface_is_arcface():
    cosines_BC = torch.tensor([[0.9, -0.5, -0.2]], dtype=torch.float64)
    got = curricular_cosines(cosines_BC, torch.tensor([0]), torch.tensor(0.7, dtype=torch.float64))
    expected = [math.cos(math.acos(0.9) + 0.5), -0.5, -0.2]
    np.testing.assert_allclose(got[0], expected, atol=1e-12)


def test_a_hard_class_keeps_its_cosine_where_t_is_one_minus_it():
    cosines_BC = torch.tensor([[0.5, 0.6]], dtype=torch.float64)
    got = curricular_cosines(cosines_BC, torch.tensor([0]), torch.tensor(0.4, dtype=torch.float64))
    assert got[0, 1].item() == pytest.approx(0.6)


def test_a_margin_of_zero_changes_no_true_class():
    true_B = torch.linspace(-0.99, 0.99, 7, dtype=torch.float64)
    np.testing.assert_allclose(with_angular_margin(true_B, 0.0), true_B, atol=1e-12)


def test_the_margin_keeps_the_order_of_angles_up_to_pi():
    falling = with_angular_margin(torch.cos(torch.linspace(0.01, 3.14, 500).double()), 0.5)
    assert (falling.diff() < 0).all()


def test_gradients_agree_with_differences(cosines_BC):
    t = torch.tensor(0.3, dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda c: curricular_cosines(c, LABELS, t), cosines_BC.requires_grad_()
    )


def test_the_arguments_are_left_as_they_were(cosines_BC):
    before = cosines_BC.clone()
    curricular_cosines(cosines_BC, LABELS, torch.tensor(0.5))
    assert torch.equal(cosines_BC, before)


def test_t_is_an_average_of_99_steps_old_and_one_new(cosines_BC):
    t = torch.zeros((), dtype=torch.float64)
    constant = torch.full_like(cosines_BC, 0.5)
    for _ in range(10):
        t = curricular_t(t, constant, LABELS)
    assert t.item() == pytest.approx(0.5 * (1 - 0.99**10))


def test_cosines_are_of_the_directions_and_never_leave_their_range():
    embeddings, weights = torch.randn(4, 8) * 100, torch.randn(3, 8) * 1e-3
    got = cosines(embeddings, weights)
    torch.testing.assert_close(got, F.cosine_similarity(embeddings[:, None], weights[None], dim=2))
    assert cosines(weights, weights).diagonal().max() <= 1


def test_distillation_is_zero_for_the_teachers_own_direction_and_two_for_its_opposite():
    teacher = F.normalize(torch.randn(3, 8))
    assert cosine_distillation(teacher * 7, teacher).item() == pytest.approx(0, abs=1e-6)
    assert cosine_distillation(-teacher, teacher).item() == pytest.approx(2, abs=1e-6)
