"""MZTS: sizes, zones against a plain ViT written out, and self-distillation's terms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from training.networks.mzts import (
    MZTS,
    Zones,
    bernoulli_divergence,
    self_distillation,
    token_projections,
)

SIZE = (24, 16)


def small(**arguments) -> MZTS:
    torch.manual_seed(0)
    arguments = {"patch": 8, "width": "tiny", "depth": 3, "attributes": 5} | arguments
    network = MZTS(SIZE, **arguments).double().eval()
    for norm in (m for m in network.modules() if isinstance(m, nn.LayerNorm)):
        nn.init.normal_(norm.bias)  # so that a norm left out is noticed
    return network


def with_interactions(network: MZTS) -> MZTS:
    """The network with its interactions away from their start, which does nothing."""
    torch.manual_seed(1)
    for interaction in network.interactions:
        nn.init.normal_(interaction.attention.out.weight, std=0.1)
    return network


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(3, 3, *SIZE, dtype=torch.float64)


@pytest.mark.parametrize(
    ("width", "count"), [("small", 22_897_656), ("tiny", 5_845_560), ("base", 90_621_816)]
)
def test_the_number_of_parameters_is_the_one_of_the_design(width, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in MZTS(width=width).parameters()) == count


def test_one_zone_of_deit_small_is_a_plain_vit_of_the_known_size():
    vit = 21_664_896 + 2 * 384 + 384 * 40 + 40  # DeiT-S to its last block, a norm and 40 answers
    with torch.device("meta"):
        assert sum(p.numel() for p in MZTS(zones=1).parameters()) == vit


@torch.no_grad()
def test_the_services_wide_crop_gives_logits_for_forty_attributes():
    network = MZTS((136, 112), patch=8, width="tiny", depth=3).eval()
    assert network(torch.zeros(2, 3, 136, 112)).shape == (2, 40)
    assert network.positions.shape == (1, 1 + 17 * 14, 192)


def norm(x: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    share = np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return centred / share * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def line(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def attended(x: np.ndarray, memory: np.ndarray, layer: nn.Module) -> np.ndarray:
    """Three heads of 64, one at a time."""
    query, (key, value) = line(x, layer.query), np.split(line(memory, layer.key_value), 2, axis=1)
    heads = []
    for head in range(3):
        at = slice(64 * head, 64 * head + 64)
        scores = np.exp(query[:, at] @ key[:, at].T / 8)
        heads.append(scores / scores.sum(1, keepdims=True) @ value[:, at])
    return line(np.concatenate(heads, 1), layer.out)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def reference(network: MZTS, image: np.ndarray) -> list[np.ndarray]:
    """The logits of every zone for one image (3, H, W)."""
    kernel = network.embed.weight.detach().numpy()
    cells = [image[:, y : y + 8, x : x + 8] for y in range(0, 24, 8) for x in range(0, 16, 8)]
    embedded = [
        np.tensordot(kernel, cell, 3) + network.embed.bias.detach().numpy() for cell in cells
    ]
    x = np.stack([network.token[0, 0].detach().numpy(), *embedded])
    x = x + network.positions[0].detach().numpy()
    memory, logits = [], []
    for zone, head in enumerate(network.heads):
        if zone:
            ask = network.interactions[zone - 1]
            seen = norm(np.concatenate(memory), ask.norm)
            x = x + attended(norm(x, ask.norm), seen, ask.attention)
        for block in network.blocks[zone * network.each : (zone + 1) * network.each]:
            y = norm(x, block.norm1)
            x = x + attended(y, y, block.attention)
            y = line(norm(x, block.norm2), block.mlp[0])
            x = x + line(gelu(y), block.mlp[2])
        memory.append(x if network.memory == "tokens" else x[:1])
        logits.append(line(norm(x[:1], head[0]), head[1])[0])
    return logits


@pytest.mark.parametrize("memory", ["cls", "tokens"])
@torch.no_grad()
def test_every_zone_is_what_the_design_says_written_out_in_numpy(faces, memory):
    network = with_interactions(small(memory=memory))
    wanted = reference(network, faces[1].numpy())
    np.testing.assert_allclose(network(faces)[1], wanted[-1], atol=1e-10)
    zones = network.train()(faces)
    for zone in range(3):
        np.testing.assert_allclose(zones.logits_GBA[zone, 1], wanted[zone], atol=1e-10)


@torch.no_grad()
def test_a_new_network_answers_as_a_plain_vit_and_zones_that_learned_do_not(faces):
    zoned, plain = small(), small(zones=1)
    weights = zoned.state_dict() | {
        f"heads.0.{k}": v for k, v in zoned.heads[-1].state_dict().items()
    }
    plain.load_state_dict({k: weights[k] for k in plain.state_dict()})
    torch.testing.assert_close(zoned(faces), plain(faces))
    assert not torch.allclose(with_interactions(zoned)(faces), plain(faces))


@torch.no_grad()
def test_a_faces_logits_do_not_depend_on_its_neighbours(faces):
    network = with_interactions(small())
    torch.testing.assert_close(torch.cat([network(f[None]) for f in faces]), network(faces))


@torch.no_grad()
def test_patches_may_change_places_if_their_positions_do(faces):
    network = with_interactions(small(memory="tokens"))
    before = network(faces)
    halves = faces.unflatten(3, (2, 8)).flip(3).flatten(3)  # columns of patches change places
    assert not torch.allclose(network(halves), before)
    table = network.positions[:, 1:].unflatten(1, (3, 2)).flip(2).flatten(1, 2)
    network.positions.copy_(torch.cat([network.positions[:, :1], table], 1))
    torch.testing.assert_close(network(halves), before)


@pytest.fixture
def zones() -> Zones:
    torch.manual_seed(3)
    logits, tokens = torch.randn(3, 4, 5).double(), torch.randn(3, 4, 6).double()
    return Zones(logits.requires_grad_(), tokens.requires_grad_())


LABELS = torch.tensor([[1, 0, 1, 1, 0]] * 2 + [[0, 1, 0, 0, 0]] * 2, dtype=torch.float64)


def projections() -> nn.ModuleList:
    torch.manual_seed(4)
    return nn.ModuleList(nn.Linear(6, 6) for _ in range(2)).double()


def entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    p = 1 / (1 + np.exp(-logits))
    return float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())


def written_out(zones: Zones, layers: nn.ModuleList, kind: str, beta, tau, lam) -> float:
    logits, tokens = (t.detach().numpy() for t in (zones.logits_GBA, zones.tokens_GBD))
    taught, token = logits[-1], tokens[-1]
    if kind == "attn":
        taught, token = np.zeros((4, 5)), np.zeros((4, 6))
        for b in range(4):
            weights = np.exp([tokens[g, b] @ tokens[-1, b] / math.sqrt(6) for g in range(3)])
            for g, weight in enumerate(weights / weights.sum()):
                taught[b] += weight * logits[g, b]
                token[b] += weight * tokens[g, b]
    total = entropy(logits[-1], LABELS.numpy())
    for g in range(2):
        total += (1 - beta) * entropy(logits[g], LABELS.numpy())
        p, q = (1 / (1 + np.exp(-z / tau)) for z in (taught, logits[g]))
        divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        total += beta * tau**2 * divergence.mean()
        total += lam * ((line(tokens[g], layers[g]) - token) ** 2).sum(1).mean() / 6
    return total


@pytest.mark.parametrize("kind", ["last", "attn"])
@pytest.mark.parametrize(("beta", "tau", "lam"), [(0.5, 2, 0.1), (0.2, 1, 0.7), (1, 4, 0)])
def test_self_distillation_is_its_formula(zones, kind, beta, tau, lam):
    layers = projections()
    got = self_distillation(zones, LABELS, layers, beta=beta, tau=tau, lam=lam, teacher=kind)
    assert got.item() == pytest.approx(written_out(zones, layers, kind, beta, tau, lam), abs=1e-12)


def test_one_zones_loss_is_the_cross_entropy(zones):
    one = Zones(zones.logits_GBA[-1:], zones.tokens_GBD[-1:])
    wanted = entropy(one.logits_GBA[0].detach().numpy(), LABELS.numpy())
    assert self_distillation(one, LABELS).item() == pytest.approx(wanted)


def test_switched_off_terms_leave_deep_supervision_or_the_last_zone_alone(zones):
    each = [entropy(z.detach().numpy(), LABELS.numpy()) for z in zones.logits_GBA]
    deep = self_distillation(zones, LABELS, beta=0, lam=0)
    assert deep.item() == pytest.approx(sum(each))
    last = self_distillation(zones, LABELS, beta=0, lam=0, supervise=False)
    assert last.item() == pytest.approx(each[-1])


def test_equal_logits_diverge_by_nothing_and_others_by_more(zones):
    a, b = zones.logits_GBA[:2]
    assert bernoulli_divergence(a, a).item() == pytest.approx(0, abs=1e-15)
    assert bernoulli_divergence(a, b).item() > 0
    assert torch.isfinite(bernoulli_divergence(a * 1e4, -b * 1e4))


@pytest.mark.parametrize("kind", ["last", "attn"])
def test_the_teacher_learns_nothing_from_teaching(zones, kind):
    labels = LABELS.clone()
    taught = self_distillation(zones, labels, projections(), beta=1, lam=1, teacher=kind)
    last_alone = self_distillation(zones, labels, beta=0, lam=0, supervise=False)
    of_taught = torch.autograd.grad(taught, [zones.logits_GBA, zones.tokens_GBD])
    of_last = torch.autograd.grad(last_alone, [zones.logits_GBA])
    torch.testing.assert_close(of_taught[0][-1], of_last[0][-1])
    assert not of_taught[1][-1].any()
    assert of_taught[0][0].any()
    assert of_taught[1][0].any()


def test_gradients_of_the_loss_agree_with_differences(zones):
    """For the students: the teacher, held still, is not differentiated."""
    layers, last = projections(), zones.logits_GBA[-1:].detach()

    def loss(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        ends = zones.tokens_GBD[-1:].detach()
        changed = Zones(torch.cat([logits, last]), torch.cat([tokens, ends]))
        return self_distillation(changed, LABELS, layers)

    students = [t[:-1].detach().requires_grad_() for t in (zones.logits_GBA, zones.tokens_GBD)]
    torch.autograd.gradcheck(loss, students)


def test_every_weight_of_network_and_projections_learns(faces):
    network = with_interactions(small()).train()
    layers = token_projections(network).double()
    labels = torch.ones(3, 5, dtype=torch.float64)
    self_distillation(network(faces), labels, layers).backward()
    for name, weight in [*network.named_parameters(), *layers.named_parameters()]:
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"size": (136, 112)}, r"size \(136, 112\): patches of 16 do not tile"),
        ({"width": "huge"}, "width 'huge' is not one of 'tiny', 'small', 'base'"),
        ({"zones": 5}, "5 zones do not divide a depth of 12"),
        ({"memory": "all"}, "memory 'all' is not one of 'cls', 'tokens'"),
    ],
)
def test_an_argument_out_of_its_range_is_refused(arguments, complaint):
    with torch.device("meta"), pytest.raises(ValueError, match=complaint):
        MZTS(**arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"beta": 1.5}, "beta 1.5 is not in"),
        ({"tau": 0}, "tau 0 not above 0"),
        ({"teacher": "first"}, "teacher 'first' is not one of 'last', 'attn'"),
        ({}, "lam 0.1: 2 projections of tokens are needed"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(zones, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        self_distillation(zones, LABELS, **arguments)


def test_an_image_of_another_size_is_refused_with_both_sizes(faces):
    with pytest.raises(ValueError, match="images are 16 x 24; this network is for 24 x 16"):
        small()(faces.mT)
