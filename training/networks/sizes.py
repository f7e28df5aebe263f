"""Every network and variant, and what its paper says of its size: the rows of docs/sizes.md.

A claim is a paper's figure with the measure that it is in, and why ours differs from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from training.networks.counting import (
    Shape,
    file_size,
    flops,
    parameters,
    summary_parameters,
    summary_passes,
    with_statistics,
)
from training.networks.ecacface import ATTENTION, IR, MobileFaceNet
from training.networks.hsanet import HSANet, ResNet50
from training.networks.mobilenet import CUTS
from training.networks.mzts import MZTS
from training.networks.patt_lite import KERNELS, PAttLite
from training.networks.sranet import SRANet

CROP, IMAGE, WIDE = (3, 112, 112), (3, 224, 224), (3, 136, 112)
# How a claim is measured, by how its unit is called in the table.
MEASURES: dict[str, Callable[[nn.Module, Shape], float]] = {
    "file, KiB / 1000": lambda network, _: file_size(network),
    "weights, MiB": lambda network, _: summary_parameters(network),
    "outputs twice, MiB": summary_passes,
    "parameters, million": lambda network, _: parameters(network) / 1e6,
    "with statistics, million": lambda network, _: with_statistics(network) / 1e6,
}


@dataclass(frozen=True)
class Claim:
    """A paper's figure as printed, its unit (of MEASURES), and why ours differs beyond rounding."""

    figure: str
    unit: str
    why: str = ""


@dataclass(frozen=True)
class Row:
    """A network, how it is built, the shape of its input, what is claimed, what was read how."""

    name: str
    build: Callable[[], nn.Module]
    shape: Shape
    claims: tuple[Claim, ...] = ()
    reading: str = ""

    def network(self) -> nn.Module:
        """The network on the meta device: shapes without numbers."""
        with torch.device("meta"):
            return self.build()

    def ours(self, network: nn.Module) -> list[float]:
        """Our figure for each claim, in the claim's unit, of this row's network."""
        return [MEASURES[claim.unit](network, self.shape) for claim in self.claims]


@dataclass(frozen=True)
class Section:
    """A paper: title, what holds of all its rows, the rows."""

    title: str
    text: str
    rows: tuple[Row, ...]


def _ecacface() -> Iterator[Row]:
    why = "19,584 of ours are batch norm's and 7,552 PReLU's; MobileFaceNets does not say if it "
    claim = Claim("0.99", "parameters, million", why + "counts them")
    yield Row("MobileFaceNet, 128-d", partial(MobileFaceNet, "none", 128), CROP, (claim,))
    nets = {
        "MobileFaceNet": (MobileFaceNet, ATTENTION, "15 bottlenecks, as in Table 1"),
        "IR_50": (partial(IR, 50), ("none", "eca", "esca"), "24 bottlenecks, as in Table 1"),
        "IR_101": (partial(IR, 101), ATTENTION, "49 bottlenecks, as in Table 1"),
    }
    readings = {
        "esca": "f2 to one channel: 18 C + k weights a bottleneck",
        "esca_wide": "the other reading of f2, to C channels",
        "sra": "SRANet's light pair in ESCA's place",
    }
    for name, (net, attentions, plain) in nets.items():
        for attention in attentions:
            known = attention == "none"
            reading = plain if known else readings.get(attention, "Table 3's, in ESCA's place")
            called = name if known else f"{name} + {attention}"
            yield Row(called, partial(net, attention), CROP, reading=reading)
    published = "ArcFace's published net: a third BN a unit, 1x1 shortcut in stage 1 too"
    for depth in (50, 101):
        build = partial(IR, depth, "none", style="insightface")
        yield Row(f"IR_{depth}, style insightface", build, CROP, reading=published)


def _sranet() -> Iterator[Row]:
    def row(
        name: str, figure: str = "", why: str = "", reading: str = "", **options: object
    ) -> Row:
        claims = (Claim(figure, "file, KiB / 1000", why),) if figure else ()
        return Row(name, partial(SRANet, **options), CROP, claims, reading)

    text, dead = "the file's text", "with the convolution that nothing uses"
    yield row("baseline, 50", "170.51", reading="units 3-4-14-3, 1x1 + BN shortcut in stage 1 too")
    figures = {"naive": "185.66", "avg": "185.66", "max": "185.66", "light": "185.67"}
    for kind, figure in figures.items():
        yield row(f"+ {kind} SSA", figure, text, dead, spatial=kind, dead_conv=True)
    figures = {"naive": "191.85", "avg": "184.77", "max": "184.77", "light": "184.78"}
    for kind, figure in figures.items():
        yield row(f"+ {kind} SCA", figure, text, channel=kind)
    yield row(
        "+ unpooled SCA", reading="naive by the paper's text; same weights", channel="unpooled"
    )
    for kind in ("naive", "avg", "max", "light"):
        reading = "as trained here, and as equation 4 needs"
        yield row(f"+ {kind} SSA, no unused weights", reading=reading, spatial=kind)
    both = {"spatial": "light", "channel": "light"}
    yield row("SRANet-50", reading="light SCA, then light SSA; no unused weights", **both)
    readme = "a whole number of no stated unit, in the README of the author's code"
    yield row("baseline, 100", "256", readme, "units 3-13-30-3", depth=100)
    yield row("SRANet-100", reading="as SRANet-50", depth=100, **both)


def _hsanet() -> Iterator[Row]:
    def claims(weights: str, outputs: str, why: tuple[str, str] = ("", "")) -> tuple[Claim, Claim]:
        units = "weights, MiB", "outputs twice, MiB"
        return Claim(weights, units[0], why[0]), Claim(outputs, units[1], why[1])

    yield Row("ResNet50", ResNet50, IMAGE, claims("89.88", "286.55"), "stride on the 3x3")
    why = "another attention than BoTNet's", "not known which layers were counted"
    printed = {"x": ("66.64", "300.76"), "3x3": ("97.54", "302.35")}
    for identity, figures in printed.items():
        for stages, where in (((4,), "last stage"), ((3, 4), "last two stages")):
            reading = "the one we train" if stages == (4,) else "for comparison"
            build = partial(HSANet, identity, stages=stages)
            name = f"HSANet({identity}), {where}"
            yield Row(name, build, IMAGE, claims(*figures, why), reading)
    reading = "the other sense of the paper's conclusion"
    yield Row("HSANet(1x1), last stage", partial(HSANet, "1x1"), IMAGE, reading=reading)


def _patt_lite() -> Iterator[Row]:
    for classes in (7, 8):
        claim = Claim("1.10", "with statistics, million")
        reading = "as many weights with attention over tokens as over the batch"
        yield Row(f"{classes} classes", partial(PAttLite, classes), IMAGE, (claim,), reading)
    table4 = {
        "patches, no attention": {"attention": "none"},
        "attention, no patches": {"patches": "none"},
        "neither": {"attention": "none", "patches": "none"},
    }
    for name, options in table4.items():
        yield Row(
            name, partial(PAttLite, **options), IMAGE, reading="Table 4; one head in all rows"
        )
    reading = "Table 6's patch attention, undefined there: a weight a patch"
    yield Row("gated patches", partial(PAttLite, patches="gate"), IMAGE, reading=reading)
    reading = "a stride of 1 in place of 2, so that 2 x 2 patches stay"
    yield Row("at 112 x 112", partial(PAttLite, size=112), CROP, reading=reading)
    for cut in CUTS:
        for kernel in KERNELS:
            build = partial(PAttLite, cut=cut, patches=kernel)
            yield Row(f"{cut}, {kernel}", build, IMAGE, reading="Table 5: a convolution and a 1x1")


def _mzts() -> Iterator[Row]:
    for width in ("tiny", "small", "base"):
        plain = partial(MZTS, width=width, zones=1)
        yield Row(f"MZTS-{width}, 1 zone", plain, IMAGE, reading="a plain ViT")
        zoned = partial(MZTS, width=width)
        reading = "all three heads' weights; in evaluation one of them computes"
        yield Row(f"MZTS-{width}, 3 zones", zoned, IMAGE, reading=reading)
    tokens = partial(MZTS, width="tiny", memory="tokens")
    reading = "zones see all earlier tokens: the same weights"
    yield Row("MZTS-tiny, 3 zones, all tokens", tokens, IMAGE, reading=reading)
    wide = partial(MZTS, WIDE[1:], patch=8, width="tiny")
    yield Row("MZTS-tiny, 3 zones, patches of 8", wide, WIDE, reading="the service's wide crop")


SECTIONS = (
    Section("ECACFace", "The paper gives no sizes.", tuple(_ecacface())),
    Section(
        "SRANet",
        'The paper\'s "MB" is the size of a checkpoint file in KiB, divided by 1000: no other unit '
        "gives 170.51. The author's code stores one more convolution a block than SSA uses, and "
        "the published sizes hold it. Up to 0.03 is left, the file's text: names of weights are "
        "part of it, and ten more letters in each of ours add 0.017 with SCA, 0.019 with SSA, and "
        "0.008 with neither.",
        tuple(_sranet()),
    ),
    Section(
        "HSANet",
        "The paper's figures are torchsummary's, as its ResNet50 shows to the last digit: MiB of "
        "layers' weights, and MiB of all layers' outputs, twice (bare parameters, here the tables "
        "of positions, are not seen). No one attention that its text allows gives both rows of "
        "HSANet. In the last stage, q and k of C / 8 channels would give (x) 66.64, but (3x3) "
        "93.65; so the attention is BoTNet's, in the last stage, and the sizes are ours.",
        tuple(_hsanet()),
    ),
    Section(
        "PAtt-Lite",
        "The paper's text gives about 1.10 million, and Keras counts batch norm's statistics too. "
        "Its tables give no sizes.",
        tuple(_patt_lite()),
    ),
    Section(
        "MZTS",
        "Only the abstract is known, and it gives no sizes: these are our design's.",
        tuple(_mzts()),
    ),
)


@dataclass(frozen=True)
class Counted:
    """A row's figures. flops: of one input. ours: as Row.ours."""

    parameters: int
    flops: int
    ours: list[float]


def count(row: Row) -> Counted:
    network = row.network()
    return Counted(parameters(network), flops(network, row.shape), row.ours(network))
