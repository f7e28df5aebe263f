"""HSANet: sizes, the attention against its formula one number at a time, and its limit cases."""

import math

import pytest
import torch
from torch import nn

from training.networks.hsanet import Bottleneck, HSANet, Hybrid, PositionalAttention, ResNet50

SIDE = 4


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: ResNet50(26), 23_561_306),
        (lambda: HSANet("x"), 18_875_994),
        (lambda: HSANet("3x3"), 25_956_954),
        (lambda: HSANet("x", stages=(3, 4)), 16_571_482),
        (lambda: HSANet("3x3", stages=(3, 4)), 27_194_458),
    ],
)
def test_the_number_of_parameters_is_the_one_of_the_reading(build, count):
    with torch.device("meta"):
        assert parameters(build()) == count


@pytest.fixture
def u() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 8, SIDE, SIDE, dtype=torch.float64)


def attention(scale: bool = True) -> PositionalAttention:
    torch.manual_seed(1)
    return PositionalAttention(8, SIDE, heads=2, scale=scale).double().eval()


def without_place(layer: PositionalAttention) -> PositionalAttention:
    nn.init.zeros_(layer.rows)
    nn.init.zeros_(layer.columns)
    return layer


def silence(*layers: nn.Conv2d) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def mixed(maps: torch.Tensor) -> torch.Tensor:
    """The maps with their positions in another order, the same in each."""
    order = torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(3))
    return maps.flatten(2)[:, :, order].view(maps.shape)


@pytest.mark.parametrize("scale", [True, False])
@torch.no_grad()
def test_attention_is_its_formula_position_by_position(u, scale):
    layer = attention(scale)
    query, key, value = (c(u).flatten(2) for c in (layer.query, layer.key, layer.value))
    wanted = torch.empty_like(query)
    for b in range(2):
        for channels, head in ((slice(0, 4), 0), (slice(4, 8), 1)):
            for i in range(SIDE * SIDE):
                q = query[b, channels, i]
                scores = []
                for j in range(SIDE * SIDE):
                    place = layer.rows[head, :, j // SIDE, 0] + layer.columns[head, :, 0, j % SIDE]
                    score = q.dot(key[b, channels, j]) + q.dot(place)
                    scores.append((score / math.sqrt(4) if scale else score).exp())
                weights = torch.stack(scores) / sum(scores)
                wanted[b, channels, i] = value[b, channels] @ weights
    torch.testing.assert_close(layer(u).flatten(2), wanted, rtol=0, atol=1e-12)


def test_gradients_of_the_attention_agree_with_differences():
    torch.manual_seed(2)
    layer = PositionalAttention(4, 2, heads=2, scale=True).double()
    u = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda maps, _rows: layer(maps), (u, layer.rows))


@torch.no_grad()
def test_attention_without_values_leaves_the_identity_alone(u):
    hybrid = Hybrid(8, 1, SIDE, identity="x", heads=2, scale=True).double()
    silence(hybrid.attention.value)
    torch.testing.assert_close(hybrid(u), u, rtol=0, atol=0)


@pytest.mark.parametrize("silent", ["query", "key and place"])
@torch.no_grad()
def test_attention_without_scores_is_the_mean_of_the_values(u, silent):
    layer = attention()
    if silent == "query":
        silence(layer.query)
    else:
        silence(without_place(layer).key)
    wanted = layer.value(u).mean((2, 3), keepdim=True).expand_as(u)
    torch.testing.assert_close(layer(u), wanted)


@torch.no_grad()
def test_attention_follows_a_permutation_of_positions_only_without_their_tables(u):
    layer = attention()
    assert not torch.allclose(layer(mixed(u)), mixed(layer(u)))
    without_place(layer)
    torch.testing.assert_close(layer(mixed(u)), mixed(layer(u)))


@torch.no_grad()
def test_attention_over_one_position_is_its_value(u):
    layer = PositionalAttention(8, 1, heads=2, scale=True).double()
    one = u[:, :, :1, :1]
    torch.testing.assert_close(layer(one), layer.value(one))


@torch.no_grad()
def test_a_convolution_that_does_nothing_makes_3x3_the_x_variant_but_for_batch_norms_epsilon(u):
    hybrid = Hybrid(8, 1, SIDE, identity="3x3", heads=2, scale=True).double().eval()
    silence(hybrid.attention.value)
    nn.init.dirac_(hybrid.identity[0].weight)
    torch.testing.assert_close(hybrid(u), u / math.sqrt(1 + hybrid.identity[1].eps))


@torch.no_grad()
def test_a_strided_block_attends_first_and_halves_afterwards(u):
    torch.manual_seed(4)
    strided = Hybrid(8, 2, SIDE, identity="3x3", heads=2, scale=True).double().eval()
    whole = strided.attention(u) + strided.identity(u)
    cells = whole.unflatten(3, (2, 2)).unflatten(2, (2, 2))
    torch.testing.assert_close(strided(u), cells.mean((3, 5)))


@torch.no_grad()
def test_the_inner_relu_is_the_only_difference_of_its_switch(u):
    blocks = [
        Bottleneck(8, 8, 1, nn.Sequential(), inner).double().eval() for inner in (True, False)
    ]
    u = u.abs()
    for block in blocks:
        torch.manual_seed(5)
        for p in block.parameters():
            nn.init.uniform_(p, 0, 1)  # nothing below zero: ReLU changes nothing
    torch.testing.assert_close(blocks[0](u), blocks[1](u))
    nn.init.constant_(blocks[0].branch[4].bias, -100)
    nn.init.constant_(blocks[1].branch[4].bias, -100)
    assert not torch.allclose(blocks[0](u), blocks[1](u))


@pytest.mark.parametrize("size", [32, 50])
@torch.no_grad()
def test_a_rows_logits_do_not_depend_on_its_neighbours(size):
    torch.manual_seed(6)
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    for network in (ResNet50(5, width=8), HSANet("3x3", 5, size=size, width=8, stages=(1, 3, 4))):
        network.double().eval()
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"identity": "5x5"}, "identity '5x5' is not one of 'x', '3x3', '1x1'"),
        ({"stages": (4, 5)}, "stage 5 is not one of 1, 2, 3, 4"),
        ({"heads": 3}, "3 heads do not divide width 64"),
        ({"size": 0}, "size 0"),
    ],
)
def test_an_argument_out_of_its_range_is_refused(arguments, complaint):
    with torch.device("meta"), pytest.raises(ValueError, match=complaint):
        HSANet(**arguments)


def test_an_image_of_another_size_is_refused_with_both_sizes():
    network = HSANet(size=64, width=8)
    with pytest.raises(ValueError, match=r"images are 64 x 32; .* those of 64 x 64"):
        network(torch.zeros(1, 3, 64, 32))
