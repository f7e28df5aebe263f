"""MobileNetV1's backbone: ImageNet's weights, its padding and its batch norm, against numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.shared import SHARED, needs_shared
from training.networks.mobilenet import BLOCKS, CUTS, mobilenet, read_mobilenet

IMAGENET = "data/weights/mobilenet_v1_1.0_224.npz"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Random weights as TF-slim's are laid out, for the 13 blocks."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray] = {}

    def add(scope: str, shape: tuple[int, ...], channels: int) -> None:
        arrays[f"{scope}/weights"] = rng.normal(0, 0.3, shape).astype(np.float16)
        for name, low, high in (
            ("gamma", 0.5, 2),
            ("beta", -1, 1),
            ("moving_mean", -1, 1),
            ("moving_variance", 0.01, 2),
        ):
            values = rng.uniform(low, high, channels).astype(np.float32)
            arrays[f"{scope}/BatchNorm/{name}"] = values

    add("Conv2d_0", (3, 3, 3, 32), 32)
    i = 32
    for block, (o, _) in enumerate(BLOCKS, 1):
        add(f"Conv2d_{block}_depthwise", (3, 3, i, 1), i)
        add(f"Conv2d_{block}_pointwise", (1, 1, i, o), o)
        i = o
    path = tmp_path_factory.mktemp("weights") / "drawn.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(params=["drawn", pytest.param("imagenet", marks=needs_shared(IMAGENET))])
def path(request, drawn) -> Path:
    return drawn if request.param == "drawn" else SHARED / IMAGENET


def folded(arrays, scope: str) -> tuple[NDArray, NDArray]:
    """Weights (H, W, in, out) or (H, W, C, 1) and bias, with batch norm in them; float64."""
    gamma, beta, mean, variance = (
        arrays[f"{scope}/BatchNorm/{name}"].astype(float)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    share = gamma / np.sqrt(variance + 0.001)
    weights = arrays[f"{scope}/weights"].astype(float)
    by = share[:, None] if scope.endswith("depthwise") else share
    return weights * by, beta - mean * share


def convolved(map_HWC: NDArray, weights: NDArray, bias: NDArray, stride: int) -> NDArray:
    """ReLU6 of a convolution that pads as TensorFlow's "SAME" on even maps, a window at a time."""
    k = weights.shape[0]
    pad = (k - stride) if k > 1 else 0  # in all: 2 at stride 1, 1 at stride 2
    before, after = pad // 2, pad - pad // 2
    padded = np.pad(map_HWC, ((before, after), (before, after), (0, 0)))
    side = map_HWC.shape[0] // stride
    out = np.empty((side, side, len(bias)))
    for y in range(side):
        for x in range(side):
            window = padded[y * stride : y * stride + k, x * stride : x * stride + k]
            if weights.shape[3] == 1:  # depth-wise
                out[y, x] = (window * weights[..., 0]).sum((0, 1))
            else:
                out[y, x] = np.tensordot(window, weights, 3)
    return np.clip(out + bias, 0, 6)


def test_the_first_layers_give_what_explicit_windows_and_folded_norms_give(path):
    image_HWC = np.random.default_rng(1).uniform(-1, 1, (16, 16, 3))
    with np.load(path) as arrays:
        wanted = convolved(image_HWC, *folded(arrays, "Conv2d_0"), stride=2)
        wanted = convolved(wanted, *folded(arrays, "Conv2d_1_depthwise"), stride=1)
        wanted = convolved(wanted, *folded(arrays, "Conv2d_1_pointwise"), stride=1)
        wanted = convolved(wanted, *folded(arrays, "Conv2d_2_depthwise"), stride=2)
    backbone = mobilenet()
    read_mobilenet(path, backbone)
    layers = dict(backbone.double().eval().named_children())
    upto = list(layers).index("dw_2_relu") + 1
    with torch.no_grad():
        got = backbone[:upto](torch.from_numpy(image_HWC).permute(2, 0, 1)[None])[0]
    np.testing.assert_allclose(got.permute(1, 2, 0), wanted, atol=1e-9)
    assert (wanted > 0).mean() > 0.1  # something is left to compare


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_ends_after_its_depth_wise_convolution_at_a_sixteenth_of_the_image(cut, drawn):
    backbone = mobilenet(cut)
    read_mobilenet(drawn, backbone)
    assert list(dict(backbone.named_children()))[-1] == f"{cut}_relu"
    with torch.no_grad():
        shape = backbone.eval()(torch.zeros(1, 3, 32, 32)).shape
    assert shape == (1, 256 if cut == "dw_6" else 512, 2, 2)


def test_the_paper_counts_58_layers_to_its_cut():
    assert len(mobilenet("dw_9")) == 58


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda a: a.pop("Conv2d_3_pointwise/BatchNorm/beta"),
            "holds no Conv2d_3_pointwise/.*beta",
        ),
        (
            lambda a: a.update({"Conv2d_2_depthwise/weights": np.zeros((3, 3, 32, 1))}),
            r"Conv2d_2_depthwise/weights is, .*, \(32, 1, 3, 3\); not \(64, 1, 3, 3\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_taken(tmp_path, drawn, change, complaint):
    with np.load(drawn) as arrays:
        changed = dict(arrays)
    change(changed)
    np.savez(tmp_path / "other.npz", **changed)
    backbone = mobilenet()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=complaint):
        read_mobilenet(tmp_path / "other.npz", backbone)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_a_cut_that_the_paper_has_not_is_refused():
    with pytest.raises(ValueError, match="cut 'dw_5' is not one of 'dw_6', 'dw_7'"):
        mobilenet("dw_5")
