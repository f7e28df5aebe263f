"""A deployable graph answers as its network does, and rows that see each other never leave."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from export.graph import (
    Distribution,
    Pixels,
    Presence,
    UnitLength,
    prove_rows,
    proven_graph,
    real_crops,
    runner,
)
from tests.export.networks import CROPS, answer, as_trained, crops_of
from tests.training.crops import drawn_crops, write_set
from training.networks.ecacface import ATTENTION, IR
from training.networks.hsanet import Bottleneck, HSANet, Hybrid
from training.networks.ir import Unit
from training.networks.sranet import STYLE, SRANet, sra

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def around(*modules, width=64):
    """A small network: maps of 14 x 14 for the modules, then 512 numbers."""
    torch.manual_seed(0)
    head = [nn.AvgPool2d(7), nn.Flatten(), nn.Linear(4 * width, 512)]
    return nn.Sequential(nn.Conv2d(3, width, 8, 8), *modules, *head)


def test_every_attention_of_table_3_goes_into_a_graph():
    attentions = [make(64) for name, make in ATTENTION.items() if name not in ("none", "sra")]
    network = as_trained(around(*attentions), CROPS)
    run = runner(proven_graph(network, Pixels(), UnitLength(), CROPS))
    np.testing.assert_allclose(run(CROPS), normalize(answer(network, CROPS)), atol=1e-5)


def test_sranets_unit_is_given_its_own_pixels():
    network = as_trained(around(Unit(64, 64, 1, sra, STYLE)), CROPS, scale=128)
    run = runner(proven_graph(network, Pixels(scale=(128.0,)), UnitLength(), CROPS))
    np.testing.assert_allclose(run(CROPS), normalize(answer(network, CROPS, scale=128)), atol=1e-5)


def test_colours_may_each_have_their_own_mean_and_scale():
    network, colours = around().eval(), Pixels((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
    run = runner(proven_graph(network, colours, UnitLength(), CROPS))
    mean, scale = (np.array(c).reshape(3, 1, 1) for c in (colours.mean, colours.scale))
    np.testing.assert_allclose(
        run(CROPS), normalize(answer(network, CROPS, mean, scale)), atol=1e-5
    )


def test_hsanets_block_goes_into_a_graph_of_scores():
    middle = Hybrid(16, 2, 14, identity="3x3", heads=4, scale=True)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 8, 8),
        Bottleneck(64, 16, 2, middle),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    network = as_trained(network, CROPS)
    run = runner(proven_graph(network, Pixels(), Distribution(1.5), CROPS))
    np.testing.assert_allclose(run(CROPS), (answer(network, CROPS) / 1.5).softmax(1), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [IR, lambda: SRANet(50, "light", "light")], ids=["ir", "sranet"])
def test_the_large_recognition_networks_become_graphs(make):
    proven_graph(as_trained(make(), CROPS), Pixels(), UnitLength(), CROPS)


@pytest.mark.slow
def test_hsanet_names_the_people_it_was_trained_on():
    crops = crops_of(224, 224)
    network = as_trained(HSANet(classes=26), crops)
    run = runner(proven_graph(network, Pixels(), Distribution(), crops))
    np.testing.assert_allclose(run(crops), answer(network, crops).softmax(1), atol=1e-5)


def test_a_prelu_of_any_slope_is_rewritten_without_changing_an_answer():
    network = around(nn.PReLU(64)).eval()
    nn.init.uniform_(network[1].weight, -0.5, 2)
    run = runner(proven_graph(network, Pixels(), UnitLength(), CROPS))
    np.testing.assert_allclose(run(CROPS), normalize(answer(network, CROPS)), atol=1e-6)


def test_a_graph_that_is_not_the_network_is_never_given_away(monkeypatch):
    monkeypatch.setattr("export.graph._FastPReLU.forward", lambda self, x: x)
    with pytest.raises(ValueError, match=r"batch 1: cosine .* to PyTorch, under 0\.99999"):
        proven_graph(around(nn.PReLU(64)), Pixels(), UnitLength(), CROPS)


class Company(nn.Module):
    """A crop's colours, and those of the crop that stands as far from the batch's other end."""

    def forward(self, x_BCHW):
        pooled_BC = x_BCHW.mean((2, 3))
        return pooled_BC + pooled_BC.flip(0)


def test_a_network_whose_rows_see_each_other_is_never_exported():
    with pytest.raises(ValueError, match="must not depend on its neighbours"):
        proven_graph(Company(), Pixels(), Distribution(), CROPS)


def colours(crops):
    return crops.mean((1, 2))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda crops: colours(crops) - colours(crops).mean(0), "rows answered alone differ"),
        (lambda crops: np.cumsum(colours(crops), 0), "rows answered alone differ"),
        (lambda crops: colours(crops) + len(crops), "rows answered alone differ"),
        (lambda crops: colours(crops) * 0, "all crops are answered alike"),
        (lambda crops: colours(crops) * np.nan, "rows answered alone differ by nan"),
    ],
    ids=["mean", "place", "size", "dead", "not a number"],
)
def test_answers_that_hang_on_other_rows_or_on_none_are_told_apart(run, reason):
    prove_rows(colours, CROPS)
    with pytest.raises(ValueError, match=reason):
        prove_rows(run, CROPS)


def test_too_few_crops_prove_nothing():
    with pytest.raises(ValueError, match="3 crops prove little"):
        proven_graph(around(), Pixels(), UnitLength(), CROPS[:3])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_calibrates_nothing_is_refused(temperature):
    for head in (Distribution, Presence):
        with pytest.raises(ValueError, match="it must be above 0"):
            head(temperature)


def test_real_crops_come_from_a_csvs_zip_at_the_size_that_is_asked(tmp_path):
    crops = drawn_crops(people=2, each=10)
    listing = write_set(crops, tmp_path)
    assert real_crops(listing, 112, 112).shape == (16, 112, 112, 3)
    np.testing.assert_array_equal(real_crops(tmp_path / "set.zip", 112, 112, 20), crops.pixels_NHWC)
    assert real_crops(listing, 80, 60, 4).shape == (4, 80, 60, 3)


def test_images_that_are_not_there_are_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"faces\.zip or .*faces"):
        real_crops(tmp_path / "faces.csv", 112, 112)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 files; 16 images are needed"):
        real_crops(tmp_path / "empty", 112, 112)
