"""ECACFace's networks: sizes, ESCA against its formula and its limit cases, units written out."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tests.shared import REPOSITORY
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
from training.graphs import open_graph
from training.networks.ecacface import ATTENTION, ECA, ESCA, IR, STYLES, MobileFaceNet
from training.networks.ir import Unit

WEIGHTS = REPOSITORY / "training/weights/ecacface-mobile.safetensors"
GRAPH = REPOSITORY / "service/models/ecacface-mobile/model.onnx"


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order_of_the_tests() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("attention", "embedding", "count"),
    [
        ("none", 512, 1_200_512),
        ("none", 128, 1_003_136),
        ("eca", 512, 1_200_577),
        ("esca", 512, 1_229_377),
    ],
)
def test_mobilefacenets_number_of_parameters(attention, embedding, count):
    with torch.device("meta"):
        assert parameters(MobileFaceNet(attention, embedding)) == count


@pytest.mark.parametrize(
    ("depth", "attention", "style", "count"),
    [
        (50, "none", "curricular", 43_573_952),
        (50, "none", "insightface", 43_590_848),
        (50, "esca", "curricular", 43_678_898),
        (101, "none", "curricular", 65_128_768),
        (101, "se", "curricular", 65_500_992),
        (101, "cbam", "curricular", 65_517_656),
        (101, "bam", "curricular", 65_916_597),
        (101, "esca", "curricular", 65_328_303),
        (101, "esca_wide", "curricular", 118_729_263),
    ],
)
def test_irs_number_of_parameters(depth, attention, style, count):
    with torch.device("meta"):
        assert parameters(IR(depth, attention, style=style)) == count


@pytest.mark.parametrize(
    ("build", "count"),
    [(MobileFaceNet, 15), (lambda: IR(50), 24), (lambda: IR(101), 49)],
    ids=["MobileFaceNet", "IR_50", "IR_101"],
)
def test_every_residual_branch_ends_in_its_attention(build, count):
    with torch.device("meta"):
        branches = [m.branch for m in build().modules() if hasattr(m, "branch")]
    assert len(branches) == count
    assert all(isinstance(branch[-1], ESCA) for branch in branches)
    assert all(isinstance(branch[-2], nn.BatchNorm2d) for branch in branches)


def test_the_weights_that_ship_load_and_answer_as_the_graph_that_ships():
    network = MobileFaceNet().eval()
    network.load_state_dict(load_file(WEIGHTS))
    crops = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    with torch.no_grad():
        ours = F.normalize(network((crops.permute(0, 3, 1, 2).float() - 127.5) / 127.5))
    theirs = torch.from_numpy(open_graph(GRAPH, threads=1)(crops.numpy()))
    assert (ours * theirs).sum(1).min() > 0.99999


@pytest.mark.parametrize(
    ("channels", "kernel"), [(2, 1), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_ecas_kernel_follows_the_channels(channels, kernel):
    assert ECA(channels).conv.kernel_size == (kernel,)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 64, 9, 7, dtype=torch.float64)


def test_eca_weighs_each_channel_by_its_neighbours_means(x):
    eca = ECA(64).double()
    left, own, right = eca.conv.weight.flatten()
    for c in range(64):
        means = [x[:, n].mean((1, 2)) if 0 <= n < 64 else 0 for n in (c - 1, c, c + 1)]
        gate = torch.sigmoid(left * means[0] + own * means[1] + right * means[2])
        torch.testing.assert_close(eca(x)[:, c], x[:, c] * gate[:, None, None])


def test_eca_of_kernel_one_is_a_gate_of_the_channels_own_mean(x):
    eca, x = ECA(2).double(), x[:, :2]
    gate = torch.sigmoid(eca.conv.weight.item() * x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(eca(x), x * gate)


@pytest.mark.parametrize("sa_out", [1, 64])
@pytest.mark.parametrize("size", [(9, 7), (2, 5), (1, 1)])
def test_esca_is_its_formula_border_included(x, sa_out, size):
    x = x[:, :, : size[0], : size[1]]
    esca = ESCA(64, sa_out).double()
    z = esca.eca(x)
    pooled = torch.cat([F.avg_pool2d(z, 3, 1, 1), F.max_pool2d(z, 3, 1, 1)], 1)
    wanted = z * torch.sigmoid(convolved(esca.f2, pooled))
    torch.testing.assert_close(esca(x), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sa_out", [1, 64])
def test_esca_without_f2_is_half_of_eca_and_without_either_a_quarter(x, sa_out):
    esca = ESCA(64, sa_out).double()
    nn.init.zeros_(esca.f2.weight)
    torch.testing.assert_close(esca(x), 0.5 * esca.eca(x))
    nn.init.zeros_(esca.eca.conv.weight)
    torch.testing.assert_close(esca(x), 0.25 * x)


def test_esca_with_every_gate_open_is_eca(x):
    esca = ESCA(64).double()
    nn.init.constant_(esca.f2.weight, 1e3)
    torch.testing.assert_close(esca(x.abs()), esca.eca(x.abs()))


def test_a_constant_map_has_a_mean_below_its_maximum_at_the_border_alone():
    esca = ESCA(64).double()
    nn.init.zeros_(esca.f2.weight)
    esca.f2.weight.data[:, 0, 1, 1], esca.f2.weight.data[:, 64, 1, 1] = -1, 1  # maximum - mean
    z = esca.eca(torch.ones(1, 64, 5, 6, dtype=torch.float64))
    gate = (esca(torch.ones(1, 64, 5, 6, dtype=torch.float64)) / z)[0, 0]
    torch.testing.assert_close(gate[1:-1, 1:-1], torch.full((3, 4), 0.5, dtype=torch.float64))
    height = z[0, 0, 0, 0]
    torch.testing.assert_close(gate[0, 0], torch.sigmoid(height * (1 - 4 / 9)))
    torch.testing.assert_close(gate[0, 1], torch.sigmoid(height * (1 - 6 / 9)))


def test_eca_commutes_with_a_permutation_of_positions_and_esca_does_not(x):
    order = torch.randperm(63, generator=torch.Generator().manual_seed(1))
    eca, esca = ECA(64).double(), ESCA(64).double()
    torch.testing.assert_close(eca(mixed(x, order)), mixed(eca(x), order))
    assert not torch.allclose(esca(mixed(x, order)), mixed(esca(x), order))


def test_esca_commutes_with_a_flip_only_where_f2_is_its_own_mirror_image(x):
    esca = ESCA(64).double()
    assert not torch.allclose(esca(x.flip(3)), esca(x).flip(3))
    esca.f2.weight.data += esca.f2.weight.data.flip(3)
    torch.testing.assert_close(esca(x.flip(3)), esca(x).flip(3))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("i", "o", "stride"), [(4, 6, 2), (4, 4, 2), (4, 4, 1)])
def test_a_unit_is_its_layers_written_out(style, i, o, stride):
    unit = stirred(Unit(i, o, stride, lambda channels: nn.Identity(), STYLES[style]))
    x = torch.randn(2, i, 5, 7, dtype=torch.float64)
    first, *others = unit.branch[:-1]
    y = convolved(others.pop(0), normed(first, x))
    if style == "insightface":
        y = normed(others.pop(0), y)
    prelu, conv, last = others
    y = normed(last, convolved(conv, bent(prelu, y))[:, :, ::stride, ::stride])
    short = x[:, :, ::stride, ::stride]
    if i != o or (stride == 2 and style == "insightface"):
        conv, norm = unit.shortcut
        short = normed(norm, torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], short))
    torch.testing.assert_close(unit(x), y + short)


@pytest.mark.parametrize(("size", "last"), [(112, 7), (56, 4), (40, 3)])
def test_mobilefacenets_last_convolution_covers_the_last_map_of_its_size(size, last):
    network = MobileFaceNet("none", 32, size=size).eval()
    assert network.head[3].kernel_size == (last, last)
    assert network(torch.zeros(1, 3, size, size)).shape == (1, 32)


def test_the_styles_differ_in_dropout_and_in_what_the_last_norm_learns():
    with torch.device("meta"):
        curricular, insightface = (IR(50, "none", style=style).head for style in STYLES)
    assert (curricular[1].p, insightface[1].p) == (0.4, 0)
    assert not curricular[-1].affine
    assert not insightface[-1].weight.requires_grad
    assert insightface[-1].bias.requires_grad


@pytest.fixture(scope="module")
def ir50() -> IR:
    return IR(50, "esca", embedding=64)


def test_a_rows_embedding_does_not_depend_on_its_neighbours(ir50):
    assert_rows_stand_alone(MobileFaceNet(), 512)
    assert_rows_stand_alone(ir50, 64)


def test_convolutions_begin_by_their_fan_out(ir50):
    for network, count in (
        (IR(50, "eca", embedding=64).units, 24 * 2),
        (MobileFaceNet(attention="eca"), 16),
    ):
        found = spreads(network, lambda _, fan_out: fan_out)
        assert found == pytest.approx([1] * count, rel=0.15)
    assert not ir50.head[3].bias.any()


def test_a_new_networks_esca_is_half_its_eca(ir50):
    """From a large f2 the gates stay shut or open, and what lies before them hardly learns."""
    for network in (ir50, MobileFaceNet()):
        gates = [module for module in network.modules() if isinstance(module, ESCA)]
        assert len(gates) in (24, 15)
        assert not any(gate.f2.weight.any() for gate in gates)
        x_BCHW = torch.randn(2, gates[0].f2.in_channels // 2, 5, 6)
        torch.testing.assert_close(gates[0](x_BCHW), gates[0].eca(x_BCHW) / 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IR(100), "depth 100 is not one of 50, 101"),
        (lambda: IR(50, "ecsa"), "attention 'ecsa' is not one of 'none', 'se', .*'esca'"),
        (lambda: IR(50, style="evolve"), "style 'evolve' is not one of 'curricular', 'insight"),
        (lambda: MobileFaceNet("ecsa"), "attention 'ecsa' is not one of 'none', 'se', .*'esca'"),
        (lambda: ESCA(64, 2), "sa_out 2 is not one of 1, 64"),
    ],
)
def test_what_is_not_known_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_table_3s_attentions_come_first_in_its_order():
    table = ["none", "se", "sk", "cbam", "bam", "sge", "eca", "esca"]
    assert list(ATTENTION)[:8] == table
