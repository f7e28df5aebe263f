"""Table 3's attentions against their formulas written out, and what all of the slot must keep."""

import pytest
import torch
from torch import Tensor, nn

from tests.training.plain import convolved, mixed, normed, parameters, stirred
from training.networks.attention import BAM, CBAM, SE, SGE, SK
from training.networks.ecacface import ATTENTION


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order_of_the_tests() -> None:
    torch.manual_seed(0)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 64, 5, 7, dtype=torch.float64)


def linear(layer: nn.Linear, x_BC: Tensor) -> Tensor:
    out = torch.einsum("oi,bi->bo", layer.weight, x_BC)
    return out if layer.bias is None else out + layer.bias


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def as_maps(x_BC: Tensor) -> Tensor:
    return x_BC[:, :, None, None]


def test_se_is_its_formula(x):
    se = stirred(SE(64))
    first, _, second, _ = se.gate
    hidden = linear(first, x.sum((2, 3)) / 35).clamp(min=0)
    torch.testing.assert_close(se(x), x * as_maps(sigmoid(linear(second, hidden))))


def test_sk_is_its_formula(x):
    sk = stirred(SK(64))
    near, far = (normed(norm, convolved(conv, x)) for conv, norm in sk.views)
    assert [view[0].dilation for view in sk.views] == [(1, 1), (2, 2)]
    first, norm, _ = sk.squeeze
    z = normed(norm, linear(first, (near + far).sum((2, 3)) / 35)).clamp(min=0)
    chosen = linear(sk.choose, z)
    share = as_maps(sigmoid(chosen[:, :64] - chosen[:, 64:]))  # a softmax over two
    torch.testing.assert_close(sk(x), share * near + (1 - share) * far)


def test_cbam_is_its_formula(x):
    cbam = stirred(CBAM(64))
    first, _, second = cbam.mlp
    mean, most = x.sum((2, 3)) / 35, x.flatten(2).sort(2).values[:, :, -1]
    z = x * as_maps(
        sigmoid(sum(linear(second, linear(first, v).clamp(min=0)) for v in (mean, most)))
    )
    summary = torch.stack([z.sort(1).values[:, -1], z.sum(1) / 64], 1)
    conv, norm = cbam.f7x7
    torch.testing.assert_close(cbam(x), z * sigmoid(normed(norm, convolved(conv, summary))))


def test_bam_is_its_formula(x):
    bam = stirred(BAM(64))
    first, norm, _, second = bam.channel
    hidden = normed(norm, linear(first, x.sum((2, 3)) / 35)).clamp(min=0)
    spatial = x
    for conv, norm in ((bam.spatial[i], bam.spatial[i + 1]) for i in (0, 3, 6)):
        spatial = normed(norm, convolved(conv, spatial)).clamp(min=0)
    assert [bam.spatial[i].dilation[0] for i in (0, 3, 6)] == [1, 4, 4]
    both = as_maps(linear(second, hidden)) * convolved(bam.spatial[9], spatial)
    torch.testing.assert_close(bam(x), x + x * sigmoid(both))


def test_sge_is_its_formula_group_by_group(x):
    x = torch.cat([x, 2 * x.flip(3)], 1)  # 128 channels: two a group
    sge = stirred(SGE(128))
    wanted = torch.empty_like(x)
    for b in range(len(x)):
        for g in range(64):
            group = x[b, 2 * g : 2 * g + 2].flatten(1)
            t = (group.sum(1) / 35) @ group
            t = t - t.sum() / 35
            t = t / ((t @ t / 35).sqrt() + 1e-5)
            gate = sigmoid(t * sge.weight[g, 0, 0] + sge.bias[g, 0, 0])
            wanted[b, 2 * g : 2 * g + 2] = (group * gate).view(2, 5, 7)
    torch.testing.assert_close(sge(x), wanted)


def test_sge_begins_as_one_gate_for_all_and_has_a_gradient_on_a_constant_map(x):
    sge = SGE(64).double()
    torch.testing.assert_close(sge(x), x * torch.sigmoid(torch.tensor(1.0, dtype=torch.float64)))
    flat = torch.ones_like(x, requires_grad=True)
    sge(flat).sum().backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("name", ["se", "eca", "sge"])
def test_what_looks_at_channels_alone_or_at_single_positions_commutes_with_their_order(name, x):
    module = stirred(ATTENTION[name](64))
    order = torch.randperm(35, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(mixed(x, order)), mixed(module(x), order))


@pytest.mark.parametrize("name", ["sk", "cbam", "bam", "esca"])
def test_what_looks_around_a_position_does_not_commute_with_their_order(name, x):
    module = stirred(ATTENTION[name](64))
    order = torch.randperm(35, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(module(mixed(x, order)), mixed(module(x), order))


@pytest.mark.parametrize("size", [(7, 7), (5, 9), (2, 3)])
@pytest.mark.parametrize("name", ATTENTION)
def test_a_map_keeps_its_shape_and_a_row_does_not_depend_on_its_neighbours(name, size):
    module = stirred(ATTENTION[name](64))
    maps = torch.randn(3, 64, *size, dtype=torch.float64)
    together = module(maps)
    assert together.shape == maps.shape
    torch.testing.assert_close(together[1:2], module(maps[1:2]))


@pytest.mark.parametrize("name", [name for name in ATTENTION if name != "none"])
def test_gradients_are_those_of_the_forward_pass(name):
    channels = 64 if name == "sge" else 16
    module = stirred(ATTENTION[name](channels))
    maps = torch.randn(1, channels, 2, 3, dtype=torch.float64, requires_grad=True)
    parameters = [p for p in module.parameters() if p.requires_grad]
    torch.autograd.gradcheck(lambda maps, *_: module(maps), (maps, *parameters), fast_mode=True)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("se", 2 * 64 * 4),
        ("sk", 2 * (9 * 64 + 2 * 64) + 3 * 64 * 32 + 2 * 32),
        ("cbam", 2 * 64 * 4 + 4 + 64 + 2 * 49 + 2),
        ("bam", 1173),
        ("sge", 2 * 64),
        ("eca", 3),
        ("esca", 18 * 64 + 3),
        ("esca_wide", 18 * 64 * 64 + 3),
    ],
)
def test_a_modules_parameters_at_64_channels(name, count):
    assert parameters(ATTENTION[name](64)) == count


@pytest.mark.parametrize("module", [SE, SK, CBAM, BAM])
@pytest.mark.parametrize("channels", [8, 24])
def test_channels_that_sixteen_does_not_divide_are_refused(module, channels):
    with pytest.raises(ValueError, match=f"{channels} channels are not a multiple of 16"):
        module(channels)


def test_channels_that_sges_groups_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="96 channels are not a multiple of 64"):
        SGE(96)
