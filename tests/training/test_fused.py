"""The faster training step gives what PyTorch's own gives."""

import copy
import shutil

import pytest
import torch
from torch import nn

from training.fused import fused_view

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is here")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.PReLU(16),
        nn.Conv2d(16, 8, 1),
        nn.BatchNorm2d(8),
    )
    for norm in (net[1], net[4]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return net.to(memory_format=torch.channels_last).train()


@needs_compiler
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_outputs_gradients_and_running_statistics_are_the_same(offset):
    plain, ours = small(), small()
    x = torch.randn(5, 3, 14, 12) + offset
    by_x = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    plain.double(), ours.float()
    outputs = [plain(by_x[0].double()), fused_view(ours)(by_x[1])]
    weights = torch.randn(outputs[0].shape)
    for output in outputs:
        (output * weights).sum().backward()
    close = {"rtol": 2e-3, "atol": 2e-3}
    torch.testing.assert_close(outputs[1], outputs[0].float(), **close)
    for (name, wanted), got in zip(plain.named_parameters(), ours.parameters(), strict=True):
        if not name.endswith("bias") or name[0] in "14":  # before a norm a bias has no gradient
            torch.testing.assert_close(
                got.grad, wanted.grad.float(), rtol=2e-3, atol=2e-2, msg=name
            )
    for wanted, got in zip(plain.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(got, wanted.to(got.dtype), rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_step_of_the_view_trains_the_network_itself():
    net = small()
    before = copy.deepcopy(net.state_dict())
    view = fused_view(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    view(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(
        not torch.equal(before[k], after[k]) for k in ("2.weight", "1.weight", "4.running_var")
    )


def test_the_view_has_no_parameters_of_its_own():
    net = small()
    assert {id(p) for p in fused_view(net).parameters()} == {id(p) for p in net.parameters()}
