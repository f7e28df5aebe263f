"""PAtt-Lite: sizes, attention within a face, the published attention's defect, two stages."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.networks.patt_lite import KERNELS, PATCHES, Gate, PAttLite, attend, freeze

SIDE = 80  # the least: maps of 5 x 5, patches of 2 x 2


def counted(**arguments) -> tuple[int, int]:
    """Parameters and statistics."""
    with torch.device("meta"):
        network = PAttLite(**arguments)
    statistics = sum(b.numel() for b in network.buffers() if b.ndim)
    return sum(p.numel() for p in network.parameters()), statistics


def small(attention: str = "tokens", **arguments) -> PAttLite:
    """A network in float64 and inference mode, its batch norms not at their start."""
    torch.manual_seed(0)
    network = PAttLite(attention=attention, size=SIDE, **arguments).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for conv in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
        nn.init.kaiming_normal_(conv.weight)  # large enough that faces differ after 20 layers
    return network.eval()


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(4, 3, SIDE, SIDE, dtype=torch.float64)


def cross_batch(**arguments) -> PAttLite:
    with pytest.warns(UserWarning, match="depend on the faces beside it"):
        return small("batch", **arguments)


def test_the_numbers_of_parameters_and_statistics_are_the_papers():
    assert counted(classes=7) == (1_093_000, 9_664)
    assert sum(counted(classes=7)) == 1_102_664
    assert sum(counted(classes=8)) == 1_102_697
    assert counted(classes=8, attention="none")[0] == 1_093_033 - 1


@pytest.mark.parametrize(
    ("patches", "size", "side"),
    [
        ("extraction", 224, 2),
        ("extraction", 112, 2),
        ("extraction", 128, 2),
        ("extraction", 144, 2),
        ("gate", 224, 2),
        ("none", 224, 14),
        ("P4", 224, 4),
        ("P8", 224, 2),
        ("NP7", 224, 2),
        ("OP3", 224, 5),
        ("OP5", 224, 3),
    ],
)
def test_the_map_is_split_into_the_papers_patches(patches, size, side):
    with torch.device("meta"):
        network = PAttLite(patches=patches, size=size)
        maps = network.patches(network.backbone(torch.empty(1, 3, size, size)))
    assert maps.shape[2:] == (side, side)


@pytest.mark.parametrize("patches", PATCHES)
@torch.no_grad()
def test_a_faces_logits_are_the_same_alone_in_any_batch_and_in_any_order(faces, patches):
    size = 144 if patches in KERNELS else SIDE
    torch.manual_seed(2)
    network = PAttLite(patches=patches, size=size, cut="dw_6").double().eval()
    faces = F.interpolate(faces, (size, size)) if size != SIDE else faces
    together = network(faces)
    torch.testing.assert_close(torch.cat([network(face[None]) for face in faces]), together)
    torch.testing.assert_close(network(faces.flip(0)), together.flip(0))


@torch.no_grad()
def test_attention_is_its_formula_token_by_token(faces):
    network = small()
    nn.init.constant_(network.scale, 0.7)
    maps = network.patches(network.backbone(faces)).numpy()
    dense, norm = network.describe[0], network.describe[2]
    for b, map_CHW in enumerate(maps):
        tokens = []
        for patch in map_CHW.reshape(256, 4).T:
            x = np.maximum(dense.weight.numpy() @ patch + dense.bias.numpy(), 0)
            x = (x - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + 1e-3)
            tokens.append(x * norm.weight.numpy() + norm.bias.numpy())
        mixed = []
        for query in tokens:
            weights = np.exp([0.7 * query @ key for key in tokens])
            mixed.append(sum(w * t for w, t in zip(weights / weights.sum(), tokens, strict=True)))
        logits = network.classify.weight.numpy() @ np.mean(mixed, 0) + network.classify.bias.numpy()
        np.testing.assert_allclose(network(faces)[b], logits, atol=1e-9)


def test_attention_over_equal_tokens_is_the_identity():
    token = torch.randn(3, 1, 32, dtype=torch.float64)
    tokens = token.expand(-1, 4, -1)
    torch.testing.assert_close(attend(tokens, torch.tensor(1.3)), tokens)


def test_gradients_of_the_attention_agree_with_differences():
    torch.manual_seed(3)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(attend, (x, scale))


@torch.no_grad()
def test_a_scale_of_zero_classifies_the_mean_token(faces):
    network = small()
    nn.init.zeros_(network.scale)
    tokens = network.patches(network.backbone(faces)).flatten(2).mT
    mean = network.describe(tokens.flatten(0, 1)).unflatten(0, (4, 4)).mean(1)
    torch.testing.assert_close(network(faces), network.classify(mean))


@torch.no_grad()
def test_the_published_attention_makes_a_faces_logits_depend_on_its_neighbours(faces):
    """The documented defect: what is proved for "tokens" above does not hold for "batch"."""
    network = cross_batch()
    assert not torch.allclose(network(faces)[:1], network(faces[:1]), rtol=1e-3)
    torch.testing.assert_close(network(faces.flip(0)), network(faces).flip(0))


@torch.no_grad()
def test_the_published_attention_is_none_where_a_face_is_alone_or_among_its_copies(faces):
    network, plain = cross_batch(), small("none")
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if k != "scale"})
    alone = network(faces[:1])
    torch.testing.assert_close(alone, plain(faces[:1]))
    torch.testing.assert_close(network(faces[:1].expand(3, -1, -1, -1)), alone.expand(3, -1))


@torch.no_grad()
def test_the_gate_gives_each_patch_one_weight():
    torch.manual_seed(4)
    patches = torch.randn(2, 5, 2, 2, dtype=torch.float64)
    gate = Gate(5).double()
    for y in range(2):
        for x in range(2):
            score = gate.weigh.weight[0, :, 0, 0] @ patches[1, :, y, x] + gate.weigh.bias[0]
            wanted = patches[1, :, y, x] / (1 + torch.exp(-score))
            torch.testing.assert_close(gate(patches)[1, :, y, x], wanted)


def step(network: PAttLite, faces: torch.Tensor) -> dict[str, torch.Tensor]:
    """One step of training; returns the weights and statistics before it."""
    before = copy.deepcopy(network.state_dict())
    network.train()
    learning = [p for p in network.parameters() if p.requires_grad]
    loss = F.cross_entropy(network(faces), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    torch.optim.SGD(learning, lr=0.1).step()
    return before


def test_stage_one_leaves_the_backbone_bit_for_bit_as_it_was(faces):
    network = small()
    freeze(network, 1)
    before = step(network, faces)
    after = network.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not any(name.startswith("backbone") for name in changed)
    assert {"describe.0.weight", "describe.2.running_mean", "classify.bias", "scale"} <= changed


def test_stage_two_changes_the_last_layers_convolutions_alone(faces):
    network = small()
    freeze(network, 2, last=6)  # pw_8, its norm and ReLU; dw_9, its norm and ReLU
    before = step(network, faces)
    after = network.backbone.state_dict()
    changed = {k for k in after if not torch.equal(after[k], before[f"backbone.{k}"])}
    assert changed == {"pw_8.weight", "dw_9.weight"}


@pytest.mark.parametrize(("last", "weights"), [(40, 789_632), (46, 798_976), (49, 799_552)])
def test_the_papers_layers_are_counted_as_keras_counts_them(last, weights):
    with torch.device("meta"):
        network = PAttLite()
    freeze(network, 2, last=last)
    learning = [p.numel() for p in network.backbone.parameters() if p.requires_grad]
    assert sum(learning) == weights


@pytest.mark.parametrize(
    ("stage", "last", "complaint"),
    [
        (2, 59, "last 59: in stage 2 0 to 58"),
        (1, 5, "stage 1 0 to 0"),
        (3, 0, "stage 3 is not one of 1, 2"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(stage, last, complaint):
    with torch.device("meta"):
        network = PAttLite()
    with pytest.raises(ValueError, match=complaint):
        freeze(network, stage, last=last)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"attention": "heads"}, "attention 'heads' is not one of 'tokens', 'none', 'batch'"),
        ({"patches": "P5"}, "patches 'P5' is not one of"),
        ({"cut": "dw_12"}, "cut 'dw_12' is not one of"),
        ({"size": 100}, "size 100 is no multiple of 16"),
        ({"size": 64}, "size 64: its map of 4 x 4 gives extraction one patch"),
        ({"size": 112, "patches": "NP7"}, "size 112: its map of 7 x 7 gives NP7 one patch"),
    ],
)
def test_an_argument_out_of_its_range_is_refused(arguments, complaint):
    with torch.device("meta"), pytest.raises(ValueError, match=complaint):
        PAttLite(**arguments)


def test_an_image_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match="images are 96 x 80; this network is for 80 x 80"):
        PAttLite(size=SIDE)(torch.zeros(1, 3, 96, SIDE))
