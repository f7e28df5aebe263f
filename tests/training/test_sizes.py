"""The table of sizes: its units against counting by hand, its claims, and the page in docs/."""

from pathlib import Path

import pytest
import torch
from torch import nn

from training.networks.counting import (
    file_size,
    flops,
    parameters,
    summary_parameters,
    summary_passes,
    with_statistics,
)
from training.networks.sizes import MEASURES, SECTIONS, Claim, Row
from training.verbs.sizes import COLUMNS, lines_of, page

DOCS = Path(__file__).parents[2] / "docs" / "sizes.md"
ROWS = [row for section in SECTIONS for row in section.rows]
SHAPE = (3, 8, 6)


class Attention(nn.Module):
    """A module with a bare parameter and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(5, 12))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW.flatten(2).mT @ x_BCHW.flatten(2) + self.places[0, 0]


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5)), Attention()
    )


@pytest.fixture(name="network")
def _network() -> nn.Sequential:
    with torch.device("meta"):
        return small()


def test_parameters_and_statistics_are_those_of_counting_by_hand(network):
    assert parameters(network) == (3 * 5 * 9 + 5) + 2 * 5 + 60
    assert with_statistics(network) == parameters(network) + 2 * 5


def test_flops_are_two_a_multiplication_of_convolutions_and_products(network):
    assert flops(network, SHAPE) == 2 * (4 * 3 * 5 * 3 * 9) + 2 * (12 * 12 * 5)


def test_torchsummarys_units_see_no_bare_parameter_and_every_layers_output(network):
    assert summary_parameters(network) == (140 + 10) * 4 / 2**20
    outputs = 5 * 12 + 5 * 12 + 12 * 12  # convolution, batch norm, attention; no nn.Sequential
    assert summary_passes(network, SHAPE) == outputs * 8 / 2**20


def test_the_file_is_as_large_as_one_that_is_written(network, tmp_path):
    path = tmp_path / "network.ckpt"
    weights = {"iters": 0, "net_state_dict": small().state_dict()}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert file_size(network) * 1_024_000 == pytest.approx(path.stat().st_size, abs=20)
    assert all(p.is_meta for p in network.parameters())


@pytest.mark.parametrize("row", [row for row in ROWS if row.claims], ids=lambda row: row.name)
def test_a_claim_is_met_to_its_rounding_or_the_difference_is_explained(row):
    for claim, ours in zip(row.claims, row.ours(row.network()), strict=True):
        digits = len(claim.figure.partition(".")[2])
        met = round(ours, digits) == float(claim.figure)
        assert met != bool(claim.why), (claim, ours)


@pytest.mark.parametrize(
    ("name", "figures", "rounding"),
    [
        ("ResNet50", [89.88, 286.55], 0.005),
        ("baseline, 50", [170.51], 0.005),
        ("+ light SSA", [185.67], 0.04),
        ("+ light SCA", [184.78], 0.04),
        ("7 classes", [1.102664], 1e-9),
    ],
)
def test_the_figures_that_fix_a_papers_unit_are_met(name, figures, rounding):
    [row] = [row for row in ROWS if row.name == name]
    assert row.ours(row.network()) == pytest.approx(figures, abs=rounding)


def test_a_row_has_a_line_and_each_further_claim_one_more():
    claims = (Claim("1.50", "parameters, million", "ours is small"), Claim("2", "weights, MiB"))
    [first, second] = lines_of(Row("small", small, SHAPE, claims, "as read"))
    cells = [cell.strip() for cell in first.split("|")[1:-1]]
    assert len(cells) == len(COLUMNS)
    assert cells[:6] == ["small", "8 x 6", "210", "0.00", "0.000", "1.50"]
    assert cells[6:] == ["0.000", "-1.500", "parameters, million", "as read; ours is small"]
    assert second.startswith("|  |  |  |  |  | 2 | 0.001 | -1.999 |")


def test_every_claims_unit_is_measured():
    assert {claim.unit for row in ROWS for claim in row.claims} == set(MEASURES)


def test_the_page_holds_every_network_once():
    lines = DOCS.read_text().splitlines()
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert [name for name in names if name and name not in ("network", "---", "|")] == [
        row.name for row in ROWS
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of an idle core, much more of a busy one
def test_the_page_is_what_the_command_writes():
    assert DOCS.read_text() == page()
