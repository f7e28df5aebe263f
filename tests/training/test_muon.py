"""Muon for matrices and AdamW for the rest, as one."""

import copy

import pytest
import torch
from torch import nn

from training.muon import MuonAndAdamW


def learner() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, 1), nn.PReLU(6), nn.Flatten(), nn.Linear(24, 3))


def optimizer_of(net: nn.Module, **changed) -> MuonAndAdamW:
    groups = [{"params": list(net.parameters()), "share": 1.0, "weight_decay": 0.1, **changed}]
    return MuonAndAdamW(groups, 0.01, lambda p: p.ndim in (2, 4))


def take_steps(net: nn.Module, optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(5, 4, 2, 2, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()


def test_a_1x1_convolution_moves_as_the_linear_layer_that_it_is():
    conv, linear = nn.Conv2d(4, 6, 1), nn.Linear(4, 6)
    linear.weight.data.copy_(conv.weight.data.flatten(1))
    linear.bias.data.copy_(conv.bias.data)
    x = torch.randn(5, 4)
    for net, images in ((conv, x[:, :, None, None]), (linear, x)):
        optimizer = optimizer_of(net)
        for _ in range(3):
            optimizer.zero_grad()
            net(images).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(conv.weight.flatten(1), linear.weight)


def test_a_matrix_moves_equally_far_in_all_directions_and_the_rest_by_adamw():
    net, adamw_alone = learner(), learner()
    before = net[3].weight.detach().clone()
    take_steps(net, optimizer_of(net, weight_decay=0.0), range(1))
    take_steps(
        adamw_alone,
        torch.optim.AdamW(adamw_alone.parameters(), lr=0.01, weight_decay=0.0),
        range(1),
    )
    singular = torch.linalg.svdvals(net[3].weight - before)
    assert singular.min() > 0.5 * singular.max()
    # Two implementations of one rule: they may round differently.
    torch.testing.assert_close(net[1].weight, adamw_alone[1].weight)
    assert (net[1].weight - 0.25).abs().min() > 5e-3  # and it has moved, by about the rate


def test_channels_last_weights_are_moved_in_place():
    net = learner().to(memory_format=torch.channels_last)
    optimizer, before = optimizer_of(net), net[0].weight.detach().clone()
    take_steps(net, optimizer, range(1))
    assert not torch.equal(net[0].weight, before)


def test_a_state_that_was_saved_goes_on_as_if_it_had_not_been():
    whole, resumed = learner(), learner()
    optimizer = optimizer_of(whole)
    take_steps(whole, optimizer, range(2))
    kept = copy.deepcopy((whole.state_dict(), optimizer.state_dict()))
    take_steps(whole, optimizer, range(2, 4))

    again = optimizer_of(resumed)
    resumed.load_state_dict(kept[0])
    again.load_state_dict(kept[1])
    take_steps(resumed, again, range(2, 4))
    # To the last bit on any processor: the same kernels on the same shapes, threads and numbers.
    for wanted, got in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(got, wanted)


def test_every_group_keeps_its_share_and_takes_the_rate_that_it_is_given():
    net = learner()
    optimizer, before = optimizer_of(net, share=0.5), copy.deepcopy(net.state_dict())
    assert {group["share"] for group in optimizer.param_groups} == {0.5}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    take_steps(net, optimizer, range(1))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_is_no_matrix_is_refused():
    with pytest.raises(RuntimeError, match="shape"):
        MuonAndAdamW([{"params": [nn.Parameter(torch.zeros(2, 3, 3, 3))]}], 0.1, lambda p: True)
