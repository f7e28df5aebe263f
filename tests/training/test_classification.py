"""What the runs share that name what they see: frames, averages, parts held out, groups."""

import numpy as np
import pytest
import torch
from torch import nn

from training.classification import Tally, average_of, held_out, logits_of, parameter_groups
from training.data.augment import LEVELS
from training.data.framed import framed

RNG = np.random.default_rng(0)


def test_a_frame_covers_its_size_and_is_cut_about_the_centre():
    wide = RNG.integers(0, 256, (2, 136, 112, 3), np.uint8)
    assert framed(wide, (136, 112)) is wide
    np.testing.assert_array_equal(framed(wide, (128, 112))[1], wide[1, 4:132])
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None], (1, 100, 50))
    small = framed(ramp, (20, 20))[0]
    assert small.shape == (20, 20, 3)
    assert small[:, 5, 0].tolist() == pytest.approx(np.arange(25.75, 75, 2.5).tolist(), abs=1)


def test_a_grey_picture_stands_three_times():
    grey = RNG.integers(0, 256, (1, 48, 48), np.uint8)
    large = framed(grey, (112, 112))
    assert large.shape == (1, 112, 112, 3)
    assert (large[0][..., :1] == large[0]).all()
    np.testing.assert_array_equal(framed(grey, (48, 48))[0][..., 2], grey[0])


def test_tints_make_grey_pictures_coloured_and_contrast_keeps_the_mean():
    grey = np.repeat(RNG.integers(60, 190, (48, 48, 1), np.uint8), 3, axis=2)
    seen = [LEVELS["tinted"](grey, np.random.default_rng(i)) for i in range(40)]
    coloured = [np.ptp(picture.mean((0, 1))) > 5 for picture in seen]
    assert 8 < sum(coloured) < 32
    spread = []
    for i in range(40):
        changed = LEVELS["contrast"](grey, np.random.default_rng(i))
        assert changed.mean() == pytest.approx(grey.mean(), abs=1)
        spread.append(changed.std() / grey.std())
    assert 0.68 < min(spread) < 0.8
    assert 1.2 < max(spread) < 1.32


def test_cropping_shows_at_least_four_fifths_of_the_area_drawn_out():
    x, y = np.meshgrid(np.arange(120), np.arange(120))
    ramps = np.stack([x, y, np.full_like(x, 255)], axis=2).astype(np.uint8)
    for seed in range(40):
        seen = LEVELS["cropped"](ramps, np.random.default_rng(seed)).astype(int)
        assert seen.shape == ramps.shape
        assert seen[40:80, 40:80, 2].min() == 255
        across, down = abs(np.diff(seen[60, 20:100, 0])), np.diff(seen[20:100, 60, 1])
        assert 0.55 < across.mean() < 1.2
        assert 0.55 < down.mean() < 1.2


def test_a_share_of_each_class_is_held_out_never_all_of_one():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 10, 100])
    aside = held_out(labels, 0.2, seed=5)
    assert [aside[labels == k].sum() for k in range(4)] == [0, 1, 2, 20]
    np.testing.assert_array_equal(aside, held_out(labels, 0.2, seed=5))
    assert (aside != held_out(labels, 0.2, seed=6)).any()
    assert held_out(labels, 1.0, seed=5).sum() == 0 + 1 + 9 + 99


def test_logits_are_those_of_evaluation_and_leave_every_mode_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(12, 3), nn.BatchNorm1d(3))
    network.train()[3].eval()
    pixels = RNG.integers(0, 256, (5, 2, 2, 3), np.uint8)
    found = logits_of(network, pixels, batch=2)
    assert found.shape == (5, 3)
    np.testing.assert_allclose(found[3:4], logits_of(network, pixels[3:4]), atol=1e-6)
    assert [module.training for module in network] == [True, True, True, False]


def test_vectors_and_what_is_spared_do_not_decay():
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    network[2].requires_grad_(False)
    decayed, others = parameter_groups(network, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert [p is network[0].weight for p in decayed["params"]] == [True]
    assert len(others["params"]) == 3
    [only] = parameter_groups(network, 0.1, spared=[network[0].weight])
    assert only["weight_decay"] == 0


def test_the_average_follows_weights_and_statistics_from_the_first_step_on():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    average = average_of(network, optimizer, 0.75)
    expected = None
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
        now = {name: value.clone() for name, value in network.state_dict().items()}
        expected = now if expected is None else {n: 0.75 * expected[n] + 0.25 * now[n] for n in now}
    found = average.module.state_dict()
    for name in ("0.weight", "1.bias", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(found[name], expected[name])
    assert average_of(network, optimizer, 0.0) is None


def test_the_tally_gives_the_share_since_it_was_last_taken_and_is_kept():
    tally = Tally()
    tally.add(torch.tensor([True, False, False, True, True]))
    again = Tally()
    again.load_state_dict(tally.state_dict())
    assert (tally.take(), tally.take(), again.take()) == (0.6, 0.0, 0.6)
