"""Losses against values computed another way, in float64, and against the papers' limit cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from training.losses import (
    MARGINS,
    arcface_cosines,
    changed_cosines,
    cosface_cosines,
    cosine_distillation,
    cosines,
    curricular_cosines,
    curricular_t,
    mv_arc_cosines,
    sphereface_annealing,
    sphereface_cosines,
    sphereface_psi,
    true_cosines,
    with_angular_margin,
)

LABELS = torch.tensor([2, 0, 4])
STATE = {"t": torch.tensor(0.3, dtype=torch.float64), "step": 10**6}


@pytest.fixture(name="cosines_BC")
def _cosines() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 5, dtype=torch.float64) * 1.8 - 0.9


def changed(loss: str, cosines_BC, labels_B=LABELS, **options):
    return changed_cosines(
        loss, cosines_BC, labels_B, **{"margin": MARGINS[loss], **STATE, **options}
    )


# The papers' formulas by angles, one number at a time: true class and other class of each loss.


def psi(theta: float, m: int) -> float:
    k = min(int(theta * m / math.pi), m - 1)
    return (-1) ** k * math.cos(m * theta) - 2 * k


def arc(theta: float, m: float) -> float:
    beyond = theta + m > math.pi
    return math.cos(theta) - m * math.sin(m) if beyond else math.cos(theta + m)


def mv(theta: float, m: float) -> float:
    return math.cos(theta + m) if theta < math.pi / 2 else math.cos(theta)


TRUE = {
    "softmax": lambda theta, m: math.cos(theta),
    "sphereface": lambda theta, m: (5 * math.cos(theta) + psi(theta, m)) / 6,
    "cosface": lambda theta, m: math.cos(theta) - m,
    "arcface": arc,
    "mv_arc": mv,
    "mv_arc_fixed": mv,
    "curricular": arc,
}
HARD = {
    "mv_arc": lambda c: 1.2 * c + 0.2,
    "mv_arc_fixed": lambda c: c + 0.2,
    "curricular": lambda c: c * (0.3 + c),
}


def reference(loss: str, cosines_BC: np.ndarray, labels_B: np.ndarray, m: float) -> np.ndarray:
    out = cosines_BC.copy()
    for row, label in enumerate(labels_B):
        theta = math.acos(cosines_BC[row, label])
        for j, c in enumerate(cosines_BC[row]):
            if j == label:
                out[row, j] = TRUE[loss](theta, m)
            elif loss in HARD and c > math.cos(theta + m):
                out[row, j] = HARD[loss](c)
    return out


def cross_entropy(logits_BC: np.ndarray, labels_B: np.ndarray) -> float:
    losses = [
        math.log(sum(math.exp(z) for z in row)) - row[label]
        for row, label in zip(logits_BC, labels_B, strict=True)
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("loss", MARGINS)
def test_each_loss_is_that_of_its_paper(loss):
    rng = np.random.default_rng(1)
    cosines_BC, labels = rng.uniform(-1, 1, (200, 7)), rng.integers(0, 7, 200)
    wanted = reference(loss, cosines_BC, labels, MARGINS[loss] or 0)
    got = changed(loss, torch.from_numpy(cosines_BC), torch.from_numpy(labels))
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-12)
    value = F.cross_entropy(64 * got, torch.from_numpy(labels)).item()
    assert value == pytest.approx(cross_entropy(64 * wanted, labels), rel=1e-12)


@pytest.mark.parametrize("loss", HARD)
def test_the_reference_meets_hard_and_easy_classes(loss):
    rng = np.random.default_rng(1)
    cosines_BC, labels = rng.uniform(-1, 1, (200, 7)), rng.integers(0, 7, 200)
    wanted = reference(loss, cosines_BC, labels, 0.5)
    assert 0.2 < (wanted == cosines_BC).mean() < 0.8


# Laws.

QUICKLY = settings(max_examples=40, deadline=None)
RANDOM = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def drawn(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    rows, classes = rng.integers(1, 6), rng.integers(2, 9)
    return (
        torch.from_numpy(rng.uniform(-1, 1, (rows, classes))),
        torch.from_numpy(rng.integers(0, classes, rows)),
    )


@QUICKLY
@given(RANDOM)
@pytest.mark.parametrize("loss", MARGINS)
def test_shards_of_the_classes_are_changed_as_the_whole(loss, rng):
    cosines_BC, labels_B = drawn(rng)
    cut, true_B = int(rng.integers(1, cosines_BC.shape[1])), true_cosines(cosines_BC, labels_B)
    first = torch.where(labels_B < cut, labels_B, -1)
    second = torch.where(labels_B >= cut, labels_B - cut, -1)
    parts = [
        changed(loss, cosines_BC[:, :cut], first, true_B=true_B),
        changed(loss, cosines_BC[:, cut:], second, true_B=true_B),
    ]
    # Vectors and what is left over of them go through other cosines, an ulp apart.
    whole = changed(loss, cosines_BC, labels_B)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)


@QUICKLY
@given(RANDOM)
@pytest.mark.parametrize("loss", MARGINS)
def test_a_row_is_changed_as_it_is_alone(loss, rng):
    cosines_BC, labels_B = drawn(rng)
    together = changed(loss, cosines_BC, labels_B)
    for row in range(len(labels_B)):
        alone = changed(loss, cosines_BC[row : row + 1], labels_B[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-12)


@QUICKLY
@given(RANDOM)
@pytest.mark.parametrize("loss", MARGINS)
def test_no_margin_favours_the_true_class(loss, rng):
    cosines_BC, labels_B = drawn(rng)
    true_B = true_cosines(changed(loss, cosines_BC, labels_B), labels_B)
    assert (true_B <= true_cosines(cosines_BC, labels_B) + 1e-12).all()


@QUICKLY
@given(RANDOM)
@pytest.mark.parametrize("loss", MARGINS)
def test_the_arguments_are_left_as_they_were(loss, rng):
    cosines_BC, labels_B = drawn(rng)
    before = cosines_BC.clone(), labels_B.clone()
    changed(loss, cosines_BC, labels_B)
    assert torch.equal(cosines_BC, before[0])
    assert torch.equal(labels_B, before[1])


@pytest.mark.parametrize("loss", MARGINS)
def test_gradients_agree_with_differences(loss, cosines_BC):
    torch.autograd.gradcheck(lambda c: changed(loss, c), cosines_BC.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", MARGINS)
def test_loss_and_gradient_are_finite_where_cosines_end(loss, dtype):
    ends = torch.tensor([1, -1, 0, 1 - 1e-7, 1e-7 - 1], dtype=dtype)
    cosines_BC = torch.cartesian_prod(ends, ends).requires_grad_()
    labels_B = torch.arange(len(cosines_BC)) % 2
    value = F.cross_entropy(64 * changed(loss, cosines_BC, labels_B), labels_B)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(cosines_BC.grad).all()


@pytest.mark.parametrize("loss", MARGINS)
def test_no_gradient_goes_through_the_border_of_hardness(loss, cosines_BC):
    cosines_BC.requires_grad_()
    own = changed(loss, cosines_BC).gather(1, LABELS[:, None]).sum()
    others = changed(loss, cosines_BC).sum() - own
    (gradient,) = torch.autograd.grad(others, cosines_BC)
    np.testing.assert_allclose(gradient.gather(1, LABELS[:, None]), 0, atol=1e-12)


# Limit cases.


@pytest.mark.parametrize(("loss", "none"), [("sphereface", 1), ("cosface", 0), ("arcface", 0)])
def test_without_its_margin_a_loss_is_softmax(loss, none, cosines_BC):
    got = changed(loss, cosines_BC, margin=none)
    np.testing.assert_allclose(got, cosines_BC, atol=1e-12)


def test_without_a_hard_class_curricularface_is_arcface():
    cosines_BC = torch.tensor([[0.9, -0.5, -0.2]], dtype=torch.float64)
    got = curricular_cosines(cosines_BC, torch.tensor([0]), torch.tensor(0.7, dtype=torch.float64))
    expected = [math.cos(math.acos(0.9) + 0.5), -0.5, -0.2]
    np.testing.assert_allclose(got[0], expected, atol=1e-12)
    np.testing.assert_allclose(got, arcface_cosines(cosines_BC, torch.tensor([0])), atol=1e-12)


def test_a_hard_class_keeps_its_cosine_where_t_is_one_minus_it():
    cosines_BC = torch.tensor([[0.5, 0.6]], dtype=torch.float64)
    got = curricular_cosines(cosines_BC, torch.tensor([0]), torch.tensor(0.4, dtype=torch.float64))
    assert got[0, 1].item() == pytest.approx(0.6)


def test_a_hard_class_below_zero_is_turned_above_it_where_t_is_zero():
    cosines_BC = torch.tensor([[-0.2, -0.4]], dtype=torch.float64)
    got = curricular_cosines(cosines_BC, torch.tensor([0]), torch.tensor(0.0, dtype=torch.float64))
    assert got[0, 1].item() == pytest.approx(0.16)


@pytest.mark.parametrize("adaptive", [True, False])
def test_mv_arc_softmax_that_raises_nothing_is_arcface_for_cosines_above_zero(adaptive, cosines_BC):
    got = mv_arc_cosines(cosines_BC.abs(), LABELS, t=0, adaptive=adaptive)
    np.testing.assert_allclose(got, arcface_cosines(cosines_BC.abs(), LABELS), atol=1e-12)


def test_mv_arc_softmax_leaves_a_true_class_that_is_not_above_zero():
    cosines_BC = torch.tensor([[-0.1, -0.9]], dtype=torch.float64)
    assert mv_arc_cosines(cosines_BC, torch.tensor([0]))[0, 0].item() == -0.1


def test_a_margin_of_zero_changes_no_true_class():
    true_B = torch.linspace(-0.99, 0.99, 7, dtype=torch.float64)
    np.testing.assert_allclose(with_angular_margin(true_B, 0.0), true_B, atol=1e-12)


def test_the_margin_keeps_the_order_of_angles_up_to_pi():
    falling = with_angular_margin(torch.cos(torch.linspace(0.01, 3.14, 500).double()), 0.5)
    assert (falling.diff() < 0).all()


# SphereFace.


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_psi_falls_without_a_step_from_1_to_1_minus_2m(m):
    thetas = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    values = sphereface_psi(torch.cos(thetas), m)
    assert values[0].item() == pytest.approx(1)
    assert values[-1].item() == pytest.approx(1 - 2 * m)
    assert (values.diff() <= 1e-12).all()
    assert values.diff().abs().max() < m * math.pi / 2000 + 1e-9


def test_annealing_takes_the_margin_away(cosines_BC):
    full = sphereface_cosines(cosines_BC, LABELS)
    np.testing.assert_allclose(
        sphereface_cosines(cosines_BC, LABELS, annealing=5), (5 * cosines_BC + full) / 6
    )
    np.testing.assert_allclose(
        sphereface_cosines(cosines_BC, LABELS, annealing=1e9), cosines_BC, atol=1e-8
    )


def test_annealing_falls_from_1000_to_5_as_published():
    assert sphereface_annealing(0) == pytest.approx(1000 / 1.12)
    assert sphereface_annealing(99) == pytest.approx(1000 / 13)
    assert sphereface_annealing(1656) > sphereface_annealing(1658) == sphereface_annealing(10**6)
    assert sphereface_annealing(10**6) == 5


@pytest.mark.parametrize("margin", [0, 1.5])
def test_a_sphereface_margin_that_is_no_whole_number_is_refused(margin, cosines_BC):
    with pytest.raises(ValueError, match=f"margin is {margin}; it must be a whole number"):
        sphereface_cosines(cosines_BC, LABELS, margin=margin)


# CurricularFace's state.


def after_ten_steps(cosines_BC: torch.Tensor, **options) -> float:
    t = torch.zeros((), dtype=torch.float64)
    constant = torch.full_like(cosines_BC, 0.5)
    for _ in range(10):
        t = curricular_t(t, constant, LABELS, **options)
    return t.item()


def test_t_is_an_average_of_99_steps_old_and_one_new(cosines_BC):
    assert after_ten_steps(cosines_BC) == pytest.approx(0.5 * (1 - 0.99**10))


def test_t_as_ecacface_writes_it_is_almost_the_last_batch(cosines_BC):
    one = curricular_t(torch.tensor(0.0), torch.full((3, 5), 0.5), LABELS, ema="paper")
    assert one.item() == pytest.approx(0.495)
    assert after_ten_steps(cosines_BC, ema="paper") == pytest.approx(0.5 * (1 - 0.01**10))


def test_r_with_the_margin_is_the_mean_of_the_angles_made_larger(cosines_BC):
    r = np.mean([math.cos(math.acos(c) + 0.4) for c in true_cosines(cosines_BC, LABELS)])
    t = torch.zeros((), dtype=torch.float64)
    got = curricular_t(t, cosines_BC, LABELS, alpha=0.9, r_with_margin=True, margin_rad=0.4)
    assert got.item() == pytest.approx(0.1 * r)


def test_t_of_a_shard_is_that_of_the_whole_and_without_a_gradient(cosines_BC):
    cosines_BC.requires_grad_()
    t, true_B = torch.tensor(0.2), true_cosines(cosines_BC, LABELS)
    absent = torch.full_like(LABELS, -1)
    got = curricular_t(t, cosines_BC[:, :1], absent, true_B=true_B)
    torch.testing.assert_close(got, curricular_t(t, cosines_BC, LABELS))
    assert not got.requires_grad


def test_an_unknown_average_and_an_unknown_loss_are_refused(cosines_BC):
    with pytest.raises(ValueError, match="ema 'new' is not one of code, paper"):
        curricular_t(torch.tensor(0.0), cosines_BC, LABELS, ema="new")
    with pytest.raises(ValueError, match="loss 'magface' is not one of softmax, sphereface"):
        changed_cosines("magface", cosines_BC, LABELS, margin=0.5, **STATE)


# Cosines.


def test_cosines_are_of_the_directions_and_never_leave_their_range():
    embeddings, weights = torch.randn(4, 8) * 100, torch.randn(3, 8) * 1e-3
    got = cosines(embeddings, weights)
    torch.testing.assert_close(got, F.cosine_similarity(embeddings[:, None], weights[None], dim=2))
    assert cosines(weights, weights).diagonal().max() <= 1


def test_a_row_without_its_class_here_has_a_true_cosine_of_zero(cosines_BC):
    got = true_cosines(cosines_BC, torch.tensor([2, -1, 4]))
    assert torch.equal(got, torch.stack([cosines_BC[0, 2], torch.zeros(()), cosines_BC[2, 4]]))


def test_cosface_takes_its_margin_off_the_true_class_alone(cosines_BC):
    moved = cosines_BC - cosface_cosines(cosines_BC, LABELS)
    np.testing.assert_allclose(moved, 0.35 * F.one_hot(LABELS, 5), atol=1e-12)


def test_distillation_is_zero_for_the_teachers_own_direction_and_two_for_its_opposite():
    teacher = F.normalize(torch.randn(3, 8))
    assert cosine_distillation(teacher * 7, teacher).item() == pytest.approx(0, abs=1e-6)
    assert cosine_distillation(-teacher, teacher).item() == pytest.approx(2, abs=1e-6)
