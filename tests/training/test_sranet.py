"""SRANet: sizes, SSA and SCA against their equations written out, and their limit cases."""

import pytest
import torch
from torch import Tensor, nn

from tests.training.plain import (
    assert_rows_stand_alone,
    bent,
    convolved,
    mixed,
    normed,
    parameters,
    spreads,
    stirred,
)
from training.networks.ecacface import MobileFaceNet
from training.networks.ir import Unit
from training.networks.sranet import CHANNEL, SCA, SPATIAL, SSA, STYLE, SRANet, pooled, sra

KINDS = [(SSA, kind) for kind in SPATIAL] + [(SCA, kind) for kind in CHANNEL]
POOLED = [(module, kind) for module, kind in KINDS if module(16, kind).pools]


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order_of_the_tests() -> None:
    torch.manual_seed(0)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 32, 5, 7, dtype=torch.float64)


@pytest.mark.parametrize(
    ("depth", "spatial", "channel", "count"),
    [
        (50, None, None, 43_590_848),
        (50, "naive", None, 45_615_008),
        (50, "avg", None, 45_615_008),
        (50, "max", None, 45_615_008),
        (50, "light", None, 45_615_008),
        (50, None, "naive", 48_988_568),
        (50, None, "unpooled", 48_988_568),
        (50, None, "avg", 47_189_336),
        (50, None, "max", 47_189_336),
        (50, None, "light", 47_189_336),
        (50, "light", "light", 49_213_496),
        (100, None, None, 65_156_160),
        (100, "light", "light", 74_565_658),
    ],
)
def test_the_number_of_parameters(depth, spatial, channel, count):
    with torch.device("meta"):
        assert parameters(SRANet(depth, spatial, channel)) == count


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, 170.51),
        ({"spatial": "naive", "dead_conv": True}, 185.66),
        ({"spatial": "light", "dead_conv": True}, 185.67),
        ({"channel": "naive"}, 191.85),
        ({"channel": "light"}, 184.78),
    ],
)
def test_the_papers_file_sizes_are_the_tensors_and_some_names(options, size):
    with torch.device("meta"):
        tensors = SRANet(50, **options).state_dict().values()
    kib_1000 = sum(tensor.nbytes for tensor in tensors) / 1_024_000
    assert size - 0.25 < kib_1000 < size - 0.05


def projected(projection: nn.Sequential, x: Tensor) -> Tensor:
    conv, norm, prelu = projection
    return bent(prelu, normed(norm, convolved(conv, x)))


def cells(x: Tensor, kind: str) -> Tensor:
    """Mean, maximum or both of each 2x2 cell, (C, M), of one map (C, H, W), cell by cell."""
    means, maxima = [], []
    for i in range(0, x.shape[1] - 1, 2):
        for j in range(0, x.shape[2] - 1, 2):
            cell = x[:, i : i + 2, j : j + 2].flatten(1)
            means.append(cell.sum(1) / 4)
            maxima.append(cell.sort(1).values[:, -1])
    mean, most = torch.stack(means, 1), torch.stack(maxima, 1)
    return {"avg": mean, "max": most, "light": mean + most}[kind]


def shares(scores: Tensor) -> Tensor:
    return scores.exp() / scores.exp().sum()


@pytest.mark.parametrize("gamma", ["learned0", "one"])
@pytest.mark.parametrize("kind", SPATIAL)
def test_ssa_is_equations_1_to_4_position_by_position(x, kind, gamma):
    ssa = stirred(SSA(32, kind, gamma))
    maps = (projected(p, x) for p in (ssa.theta, ssa.phi, ssa.rho))
    wanted = x.clone()
    for b, (theta, phi, rho) in enumerate(zip(*maps, strict=True)):
        flat = kind == "naive"
        keys, values = (m.flatten(1) if flat else cells(m, kind) for m in (theta, rho))
        for i in range(5):
            for j in range(7):
                row = shares(torch.stack([phi[:, i, j] @ key for key in keys.t()]))
                taken = sum(a * value for a, value in zip(row, values.t(), strict=True))
                wanted[b, :, i, j] += ssa.gamma * taken
    torch.testing.assert_close(ssa(x), wanted)


@pytest.mark.parametrize("gamma", ["learned0", "one"])
@pytest.mark.parametrize("kind", CHANNEL)
def test_sca_is_equations_5_to_9_channel_by_channel(x, kind, gamma):
    sca = stirred(SCA(32, kind, gamma))
    maps = (projected(p, x) for p in (sca.theta, sca.phi, sca.rho))
    wanted = x.clone()
    for b, (theta, phi, rho) in enumerate(zip(*maps, strict=True)):
        pools = {"naive": "light"}.get(kind, kind)
        flat = kind == "unpooled"
        queries, keys = (m.flatten(1) if flat else cells(m, pools) for m in (theta, phi))
        for c in range(32):
            row = shares(torch.stack([queries[c] @ key for key in keys]))
            taken = sum(a * value for a, value in zip(row, rho, strict=True))
            wanted[b, c] += sca.gamma * taken
    torch.testing.assert_close(sca(x), wanted)


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (5, 8)])
def test_affinities_have_the_papers_shapes_and_rows_that_sum_to_one(size):
    height, width = size
    x = torch.randn(2, 32, height, width, dtype=torch.float64)
    spatial, channel = stirred(SSA(32)).affinity(x), stirred(SCA(32)).affinity(x)
    assert spatial.shape == (2, height * width, (height // 2) * (width // 2))
    assert channel.shape == (2, 32, 16)
    for rows in (spatial.sum(2), channel.sum(2)):
        torch.testing.assert_close(rows, torch.ones_like(rows))


def test_light_pooling_is_the_mean_and_the_maximum_and_twice_a_constant(x):
    mean, most, both = (pooled(x, pools) for pools in (("avg",), ("max",), ("avg", "max")))
    torch.testing.assert_close(both, mean + most)
    ssa = stirred(SSA(32))
    flat = ssa.theta(x[:, :, :1, :1].expand(-1, -1, 6, 4))
    torch.testing.assert_close(pooled(flat, ssa.pools), 2 * flat.flatten(2)[:, :, :6])


@pytest.mark.parametrize(("module", "kind"), KINDS)
def test_gamma_begins_at_zero_changes_nothing_and_learns(x, module, kind):
    attention = module(32, kind).double()
    assert torch.equal(attention(x), x)  # x + 0 * y is x in IEEE arithmetic, for any finite y
    attention(x).square().sum().backward()
    assert attention.gamma.grad.abs() > 0


def test_with_gamma_zero_a_whole_network_is_bit_for_bit_its_baseline():
    network = MobileFaceNet("sra").eval()
    baseline = MobileFaceNet("none").eval()
    baseline.load_state_dict(network.state_dict(), strict=False)
    crops = torch.randn(2, 3, 112, 112)
    # On any processor: x + 0 * y is x, and the layers behind it are the same on the same shapes.
    with torch.no_grad():
        assert torch.equal(network(crops), baseline(crops))


@pytest.mark.parametrize(("module", "kind"), KINDS)
def test_without_values_any_gamma_changes_nothing(x, module, kind):
    attention = module(32, kind, "one").double().eval()
    nn.init.zeros_(attention.rho[0].weight)
    assert torch.equal(attention(x), x)  # sums of zeros are zero, and x + 0 is x


@pytest.mark.parametrize("kind", SPATIAL)
def test_without_queries_every_position_takes_the_mean_of_the_values(x, kind):
    ssa = stirred(SSA(32, kind, "one"))
    nn.init.zeros_(ssa.phi[0].weight)
    nn.init.zeros_(ssa.phi[1].running_mean)
    nn.init.zeros_(ssa.phi[1].bias)
    values = pooled(ssa.rho(x), ssa.pools).mean(2)
    torch.testing.assert_close(ssa(x) - x, values[:, :, None, None].expand_as(x))


def orders(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two orders of a map's positions: any, and one that moves whole aligned 2x2 cells."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.arange(height * width).view(height // 2, 2, width // 2, 2)
    blocks = grid.permute(0, 2, 1, 3).reshape(-1, 2, 2)
    moved = blocks[torch.randperm(len(blocks), generator=generator)]
    moved = moved.view(height // 2, width // 2, 2, 2).permute(0, 2, 1, 3)
    return torch.randperm(height * width, generator=generator), moved.flatten()


@pytest.mark.parametrize(("module", "kind"), KINDS)
def test_pools_bind_a_map_to_its_cells_and_nothing_else_to_positions(x, module, kind):
    x = torch.cat([x, x.flip(2)], 2)[:, :, :6, :6]
    attention = stirred(module(32, kind, "one"))
    anyhow, by_cells = orders(6, 6)
    torch.testing.assert_close(attention(mixed(x, by_cells)), mixed(attention(x), by_cells))
    free = torch.allclose(attention(mixed(x, anyhow)), mixed(attention(x), anyhow))
    assert free == (not attention.pools)


@pytest.mark.parametrize(("module", "kind"), KINDS)
def test_a_row_does_not_depend_on_its_neighbours_at_an_odd_size(module, kind):
    attention = stirred(module(32, kind, "one"))
    maps = torch.randn(3, 32, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(attention(maps)[1:2], attention(maps[1:2]))


@pytest.mark.parametrize(("module", "kind"), KINDS)
def test_gradients_are_those_of_the_forward_pass(module, kind):
    attention = stirred(module(16, kind))
    maps = torch.randn(1, 16, 3, 2, dtype=torch.float64, requires_grad=True)
    inputs = (maps, *attention.parameters())
    torch.autograd.gradcheck(lambda maps, *_: attention(maps), inputs, fast_mode=True)


@pytest.mark.parametrize(("module", "kind"), POOLED)
def test_a_map_without_a_cell_is_refused_where_there_are_pools(module, kind):
    with pytest.raises(ValueError, match="a map of 1 x 1 has no 2 x 2 cell to pool"):
        module(16, kind).eval()(torch.zeros(1, 16, 1, 1))


def test_scas_map_comes_first_and_ssa_adds_to_it(x):
    both = stirred(sra(32, gamma="one"))
    sca, ssa = both
    assert (type(sca), type(ssa)) == (SCA, SSA)
    torch.testing.assert_close(both(x), ssa(sca(x)))


def test_a_unit_adds_its_shortcut_behind_the_attention(x):
    plain = stirred(Unit(32, 32, 1, lambda channels: nn.Sequential(), STYLE))
    unit = stirred(Unit(32, 32, 1, lambda channels: sra(channels, gamma="one"), STYLE))
    plain.load_state_dict(unit.state_dict(), strict=False)
    torch.testing.assert_close(unit(x), unit.branch[-1](plain.branch(x)) + x)


def test_the_dead_convolution_changes_no_answer(x):
    ssa = stirred(SSA(32, dead_conv=True))
    answer = ssa(x)
    nn.init.zeros_(ssa.dead[0].weight)
    torch.testing.assert_close(ssa(x), answer, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def sranet50() -> SRANet:
    return SRANet(50, "light", "light", gamma="one", embedding=64)


def test_a_rows_embedding_does_not_depend_on_its_neighbours(sranet50):
    assert_rows_stand_alone(sranet50, 64)


def test_the_head_drops_four_tenths_and_learns_its_last_norm(sranet50):
    assert sranet50.head[1].p == 0.4
    assert all(p.requires_grad for p in sranet50.head[-1].parameters())
    assert sranet50.head[-1].affine


def test_convolutions_begin_xavier_uniform(sranet50):
    found = spreads(sranet50.units, lambda fan_in, fan_out: fan_in + fan_out)
    assert found == pytest.approx([1] * 24 * 2, rel=0.1)
    assert not sranet50.head[3].bias.any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SRANet(101), "depth 101 is not one of 50, 100"),
        (lambda: SRANet(50, "lite"), "spatial attention 'lite' is not one of 'naive', 'avg', 'm"),
        (lambda: SRANet(50, None, "lite"), "channel attention 'lite' is not one of 'naive', 'avg"),
        (lambda: SRANet(50, gamma="zero"), "gamma 'zero' is not one of 'learned0', 'one'"),
        (lambda: SSA(24), "24 channels are not a multiple of 16"),
    ],
)
def test_what_is_not_known_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()
