"""The faster training step gives what PyTorch's own gives."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from training import fused
from training.fused import _compiled, fused_view
from training.networks.ecacface import ESCA

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is here")

# A constant that a normalisation takes away again.
NO_GRADIENT = ("0.bias", "7.bias", "8.bias")


def small(*, attention: bool = True) -> nn.Sequential:
    """Everything that the view replaces, with sizes that no kernel divides evenly."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 48, 3),
        nn.BatchNorm2d(48),
        nn.PReLU(48),
        nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False),
        nn.BatchNorm2d(48),
        nn.PReLU(48),
        nn.Conv2d(48, 48, 3, stride=2, padding=1, groups=48, bias=False),
        nn.BatchNorm2d(48),
        nn.Conv2d(48, 32, 1),
        nn.BatchNorm2d(32),
        ESCA(32) if attention else nn.Identity(),
    )
    for norm in (net[1], net[4], net[7], net[9]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return net.to(memory_format=torch.channels_last).train()


def like_mobilenet() -> nn.Sequential:
    """What PAtt-Lite has besides: ReLU6, TensorFlow's padding, windows that do not overlap."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 48, 3),
        nn.BatchNorm2d(48),
        nn.ReLU6(),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(48, 48, 3, stride=2, groups=48, bias=False),
        nn.BatchNorm2d(48),
        nn.ReLU6(),
        nn.Conv2d(48, 48, 2, 2, groups=48, bias=False),
    )
    for norm in (net[1], net[5]):
        nn.init.uniform_(norm.weight, 2, 5)  # so that some of the map reaches 6
        nn.init.normal_(norm.bias, 2)
    return net.to(memory_format=torch.channels_last).train()


@needs_compiler
@pytest.mark.parametrize("network", [small, like_mobilenet])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_outputs_gradients_and_running_statistics_are_the_same(network, offset):
    plain, ours = network(), network()
    x = torch.randn(5, 3, 14, 11) + offset
    by_x = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    plain.double(), ours.float()
    outputs = [plain(by_x[0].double()), fused_view(ours)(by_x[1])]
    weights = torch.randn(outputs[0].shape)
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(outputs[1], outputs[0].float(), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(by_x[1].grad, by_x[0].grad, rtol=2e-3, atol=1e-2)
    for (name, wanted), got in zip(plain.named_parameters(), ours.parameters(), strict=True):
        if name not in NO_GRADIENT:
            torch.testing.assert_close(
                got.grad, wanted.grad.float(), rtol=2e-3, atol=2e-2, msg=name
            )
    for wanted, got in zip(plain.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(got, wanted.to(got.dtype), rtol=1e-4, atol=1e-5)


def without_attention() -> nn.Sequential:
    """Without ESCA: where two of the nine values become equal, its maximum's gradient moves."""
    return small(attention=False)


@needs_compiler
@pytest.mark.parametrize("network", [without_attention, like_mobilenet])
def test_bfloat16_maps_give_nearly_the_same_and_float32_gradients(network):
    plain, ours = network(), network()
    x = torch.randn(5, 3, 14, 11)
    wanted = plain(x)
    weights = torch.randn(wanted.shape)
    (wanted * weights).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        output = fused_view(ours)(x)
    assert output.dtype == torch.bfloat16
    (output * weights).sum().backward()
    for (name, wanted), got in zip(plain.named_parameters(), ours.parameters(), strict=True):
        if name not in NO_GRADIENT:
            assert got.grad.dtype == torch.float32
            alike = torch.cosine_similarity(got.grad.flatten(), wanted.grad.flatten(), dim=0)
            assert alike > 0.995, name


@needs_compiler
@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 10), (5, 5), (2, 2)])
def test_a_depth_wise_convolution_over_tensorflows_padding_is_one_step(height, width):
    torch.manual_seed(3)
    plain = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(32, 32, 3, 2, groups=32, bias=False)
    )
    ours = fused_view(plain)
    assert len(ours) == 1
    x = torch.randn(3, 32, height, width).requires_grad_()
    wanted = plain(x)
    torch.testing.assert_close(ours(x), wanted)
    weights, learnt = torch.randn(wanted.shape), [x, plain[1].weight]
    gradients = [torch.autograd.grad((net(x) * weights).sum(), learnt) for net in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_padding_that_no_step_knows_is_left_to_pytorch():
    for around in ((1, 1, 1, 1), (0, 1, 0, 2)):
        net = nn.Sequential(nn.ZeroPad2d(around), nn.Conv2d(16, 16, 3, 2, groups=16, bias=False))
        x = torch.randn(2, 16, 6, 6)
        torch.testing.assert_close(fused_view(net)(x), net(x))


@needs_compiler
@pytest.mark.parametrize(("channels", "height", "width"), [(16, 5, 4), (64, 7, 7), (32, 1, 1)])
def test_esca_as_one_step_is_esca(channels, height, width):
    torch.manual_seed(1)
    plain = ESCA(channels)
    ours = fused_view(nn.Sequential(plain))
    x = torch.randn(3, channels, height, width).requires_grad_()
    learnt = [x, *plain.parameters()]
    weights = torch.randn(x.shape)
    wanted = torch.autograd.grad((plain(x) * weights).sum(), learnt)
    got = torch.autograd.grad((ours(x) * weights).sum(), learnt)
    torch.testing.assert_close(ours(x), plain(x))
    for g, w in zip(got, wanted, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_maximum_that_several_positions_share_gives_its_gradient_to_the_first():
    torch.manual_seed(2)
    plain = ESCA(16)
    x = torch.randint(0, 2, (2, 16, 4, 5)).float().requires_grad_()
    weights = torch.randn(x.shape)
    [wanted] = torch.autograd.grad((plain(x) * weights).sum(), [x])
    [got] = torch.autograd.grad((fused_view(nn.Sequential(plain))(x) * weights).sum(), [x])
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_map_that_does_not_fit_the_passes_is_refused_with_its_shape():
    with pytest.raises(RuntimeError, match=r"multiple of 16.*\[2, 8, 3, 3\]"):
        _compiled().depthwise_forward(torch.randn(2, 8, 3, 3), torch.randn(8, 1, 3, 3), 1, 1)


@needs_compiler
def test_a_step_of_the_view_trains_the_network_itself():
    net = small()
    before = copy.deepcopy(net.state_dict())
    view = fused_view(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    view(torch.randn(2, 3, 14, 11)).square().mean().backward()
    optimizer.step()
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(
        not torch.equal(before[k], after[k]) for k in ("2.weight", "3.weight", "4.running_var")
    )


def test_the_view_has_no_parameters_of_its_own():
    net = small()
    assert {id(p) for p in fused_view(net).parameters()} == {id(p) for p in net.parameters()}


def test_a_build_that_was_killed_holds_nobody_up_and_each_processor_has_its_own(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    built = []

    def load(name, sources, *, build_directory, **_):
        mark = Path(build_directory) / "lock"
        assert not mark.exists()  # PyTorch waits for ever where it is
        mark.touch()  # as of a process that is killed while it builds
        built.append(name)

    monkeypatch.setattr(fused, "load", load)
    fused._compiled.__wrapped__()
    fused._compiled.__wrapped__()
    monkeypatch.setattr(fused, "_instructions", lambda: b"flags: another")
    fused._compiled.__wrapped__()
    assert built[0] == built[1] != built[2]
