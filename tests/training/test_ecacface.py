"""ECACFace's MobileFaceNet: sizes, ESCA against its formula and its limit cases."""

import pytest
import torch
from torch.nn import functional as F

from training.networks.ecacface import ECA, ESCA, MobileFaceNet


@pytest.mark.parametrize(
    ("attention", "count"), [("none", 1_200_512), ("eca", 1_200_577), ("esca", 1_229_377)]
)
def test_the_number_of_parameters_is_the_papers(attention, count):
    assert sum(p.numel() for p in MobileFaceNet(attention).parameters()) == count


@pytest.mark.parametrize(
    ("channels", "kernel"), [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_ecas_kernel_follows_the_channels(channels, kernel):
    assert ECA(channels).conv.kernel_size == (kernel,)


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 64, 9, 7, dtype=torch.float64)


def test_esca_is_its_formula_border_included(x):
    esca = ESCA(64).double()
    z = esca.eca(x)
    pooled = torch.cat([F.avg_pool2d(z, 3, 1, 1), F.max_pool2d(z, 3, 1, 1)], 1)
    torch.testing.assert_close(esca(x), z * torch.sigmoid(esca.f2(pooled)), rtol=0, atol=1e-12)


def test_esca_without_f2_is_half_of_eca_and_without_either_a_quarter(x):
    esca = ESCA(64).double()
    torch.nn.init.zeros_(esca.f2.weight)
    torch.testing.assert_close(esca(x), 0.5 * esca.eca(x))
    torch.nn.init.zeros_(esca.eca.conv.weight)
    torch.testing.assert_close(esca(x), 0.25 * x)


def test_eca_commutes_with_a_permutation_of_positions_and_esca_does_not(x):
    order = torch.randperm(63, generator=torch.Generator().manual_seed(1))

    def mixed(maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(2)[:, :, order].view(maps.shape)

    eca, esca = ECA(64).double(), ESCA(64).double()
    torch.testing.assert_close(eca(mixed(x)), mixed(eca(x)))
    assert not torch.allclose(esca(mixed(x)), mixed(esca(x)))


def test_a_rows_embedding_does_not_depend_on_its_neighbours():
    network = MobileFaceNet().eval()
    crops = torch.randn(3, 3, 112, 112)
    with torch.no_grad():
        together, alone = network(crops), network(crops[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
