"""The classifier: the loss that it computes, and several ranks against one process."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.training import sharded_ranks as ranks
from training.losses import arcface_cosines, cosines
from training.sharded import Classifier, cut_shard, join_shards, span

CLASSES, WIDTH = ranks.CLASSES, ranks.WIDTH
INPUTS, LABELS = ranks.batch(0)
KNOWN = LABELS >= 0
# Sums over ranks are taken in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(name="two", scope="module")
def _two(tmp_path_factory):
    return ranks.run(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(name="three", scope="module")
def _three(tmp_path_factory):
    return ranks.run(3, tmp_path_factory.mktemp("three"))


@pytest.fixture(name="embeddings_BD")
def _embeddings():
    torch.manual_seed(0)
    return torch.randn(12, WIDTH)


# One process.


def test_the_loss_is_the_cross_entropy_of_the_labelled_rows(embeddings_BD):
    weights = ranks.start()
    changed = arcface_cosines(cosines(embeddings_BD[KNOWN], weights), LABELS[KNOWN], margin_rad=0.3)
    wanted = F.cross_entropy(16 * changed, LABELS[KNOWN])
    got = Classifier(CLASSES, WIDTH, loss="arcface", scale=16.0, margin=0.3, init_CD=weights)
    torch.testing.assert_close(got(embeddings_BD, LABELS), wanted)


def test_a_linear_softmax_keeps_every_length(embeddings_BD):
    weights = ranks.start()
    classifier = Classifier(CLASSES, WIDTH, loss="softmax_linear", init_CD=weights)
    wanted = F.cross_entropy(embeddings_BD @ weights.t(), LABELS, ignore_index=-1)
    torch.testing.assert_close(classifier(embeddings_BD, LABELS), wanted)


def test_lengths_stand_in_for_the_scale_as_sphereface_was_published(embeddings_BD):
    weights = ranks.start()
    classifier = Classifier(
        CLASSES, WIDTH, loss="sphereface", margin=1, normalise=False, init_CD=weights
    )
    wanted = F.cross_entropy(embeddings_BD @ F.normalize(weights).t(), LABELS, ignore_index=-1)
    torch.testing.assert_close(classifier(embeddings_BD, LABELS), wanted)


def test_its_gradients_are_those_of_cross_entropy(embeddings_BD):
    classifier = Classifier(CLASSES, WIDTH, loss="softmax", init_CD=ranks.start())
    ours, plain = (embeddings_BD.clone().requires_grad_() for _ in range(2))
    weights = ranks.start().requires_grad_()
    classifier(ours, LABELS).backward()
    F.cross_entropy(64 * cosines(plain, weights), LABELS, ignore_index=-1).backward()
    torch.testing.assert_close(ours.grad, plain.grad)
    torch.testing.assert_close(classifier.weight.grad, weights.grad)


def test_a_row_without_a_label_changes_nothing(embeddings_BD):
    options = {"init_CD": ranks.start()}
    every, labelled = (Classifier(CLASSES, WIDTH, **options) for _ in range(2))
    torch.testing.assert_close(
        every(embeddings_BD, LABELS), labelled(embeddings_BD[KNOWN], LABELS[KNOWN])
    )
    torch.testing.assert_close(every.t, labelled.t)


def test_a_batch_without_a_label_gives_zero_and_a_gradient_of_zero(embeddings_BD):
    classifier = Classifier(CLASSES, WIDTH)
    embeddings_BD.requires_grad_()
    loss = classifier(embeddings_BD, torch.full((12,), -1))
    loss.backward()
    assert loss == 0
    assert (embeddings_BD.grad == 0).all()
    assert (classifier.t, classifier.step) == (0, 0)


@pytest.mark.parametrize("loss", ["curricular", "softmax_linear"])
def test_it_computes_in_float32_under_autocast(loss, embeddings_BD):
    losses = [Classifier(CLASSES, WIDTH, loss=loss, init_CD=ranks.start()) for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = losses[0](embeddings_BD, LABELS)
    assert mixed.dtype == torch.float32
    # Both in float32 by the same kernels on the same shapes: equal on any processor.
    assert torch.equal(mixed, losses[1](embeddings_BD, LABELS))


def test_a_large_scale_overflows_nothing(embeddings_BD):
    classifier = Classifier(CLASSES, WIDTH, scale=1e4, init_CD=ranks.start())
    assert torch.isfinite(classifier(embeddings_BD, LABELS))


def test_t_moves_in_training_alone_and_is_kept_in_the_state(embeddings_BD):
    classifier = Classifier(CLASSES, WIDTH, alpha=0.9, init_CD=ranks.start()).eval()
    classifier(embeddings_BD, LABELS)
    assert classifier.t == 0
    classifier.train()(embeddings_BD, LABELS)
    row = torch.arange(12)[KNOWN]
    r = cosines(embeddings_BD, ranks.start())[row, LABELS[KNOWN]].mean()
    torch.testing.assert_close(classifier.t, 0.1 * r)
    again = Classifier(CLASSES, WIDTH)
    again.load_state_dict(classifier.state_dict())
    assert torch.equal(again.t, classifier.t)


@pytest.mark.parametrize(("label", "row"), [(CLASSES, 3), (-2, 7)])
def test_a_label_out_of_range_is_named_with_its_row_and_limit(embeddings_BD, label, row):
    labels = LABELS.clone()
    labels[row] = label
    with pytest.raises(
        ValueError, match=rf"label {label} in row {row} .* not in \[-1, {CLASSES}\)"
    ):
        Classifier(CLASSES, WIDTH)(embeddings_BD, labels)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"loss": "magface"}, "loss 'magface' is not one of softmax_linear, softmax"),
        ({"loss": "softmax", "margin": 0.5}, "softmax has no margin"),
        ({"ema": "new"}, "ema 'new' is not one of code, paper"),
        ({"sample": 0.0}, "sample is 0.0"),
        ({"init_CD": torch.zeros(3, WIDTH)}, r"\(3, 6\), not \(11, 6\)"),
    ],
)
def test_bad_arguments_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        Classifier(CLASSES, WIDTH, **options)


def test_embeddings_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"\(12, 5\), not \(12, 6\)"):
        Classifier(CLASSES, WIDTH)(INPUTS, LABELS)


# Sampling.


def test_sampling_every_class_is_sampling_none(embeddings_BD):
    torch.manual_seed(1)
    most = [Classifier(CLASSES, WIDTH, sample=s, init_CD=ranks.start()) for s in (1.0, 0.9999)]
    torch.testing.assert_close(*(classifier(embeddings_BD, LABELS) for classifier in most))


def test_a_sample_has_every_class_of_the_batch_and_others_at_random(embeddings_BD):
    classifier = Classifier(1000, WIDTH, sample=0.1, seed=2)
    taken = []
    for _ in range(2):
        classifier.weight.grad = None
        classifier(embeddings_BD, LABELS * 90).backward()
        taken.append(set(classifier.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()))
    positives = set((LABELS * 90)[KNOWN].tolist())
    assert [len(classes) for classes in taken] == [100, 100]
    assert positives <= taken[0] & taken[1]
    assert len(taken[0] & taken[1]) < 100


def test_a_sample_is_the_softmax_over_its_classes_alone(embeddings_BD):
    weights = torch.randn(1000, WIDTH, generator=torch.Generator().manual_seed(4))
    classifier = Classifier(1000, WIDTH, loss="softmax", sample=0.02, init_CD=weights)
    loss = classifier(embeddings_BD, LABELS)
    loss.backward()
    taken = classifier.weight.grad.abs().sum(1).nonzero()[:, 0]
    labels = torch.searchsorted(taken, LABELS[KNOWN])
    wanted = F.cross_entropy(64 * cosines(embeddings_BD[KNOWN], weights[taken]), labels)
    torch.testing.assert_close(loss, wanted)


def test_a_resumed_run_draws_the_sample_that_an_unbroken_one_would(embeddings_BD):
    unbroken = Classifier(1000, WIDTH, sample=0.1)
    unbroken(embeddings_BD, LABELS)
    resumed = Classifier(1000, WIDTH, sample=0.1)
    resumed.load_state_dict(unbroken.state_dict())
    # The same kernels on the same shapes and numbers: equal on any processor.
    assert torch.equal(unbroken(embeddings_BD, LABELS), resumed(embeddings_BD, LABELS))


def test_evaluation_sees_every_class(embeddings_BD):
    some = Classifier(CLASSES, WIDTH, sample=0.1, init_CD=ranks.start()).eval()
    every = Classifier(CLASSES, WIDTH, init_CD=ranks.start()).eval()
    torch.testing.assert_close(some(embeddings_BD, LABELS), every(embeddings_BD, LABELS))


# Several ranks.


@pytest.mark.parametrize("world", ["two", "three"])
@pytest.mark.parametrize("name", ranks.OPTIONS)
def test_ranks_learn_what_one_process_learns(name, world, request):
    several = [found[name] for found in request.getfixturevalue(world)]
    alone = ranks.whole(**ranks.OPTIONS[name])
    for seen in several:
        torch.testing.assert_close(seen.losses, alone.losses, **CLOSE)
        torch.testing.assert_close(seen.network, alone.network, **CLOSE)
    joined = [torch.cat(parts) for parts in zip(*(seen.weight for seen in several), strict=True)]
    torch.testing.assert_close(joined, alone.weight, **CLOSE)
    torch.testing.assert_close(join_shards([s.state for s in several]), alone.state, **CLOSE)


def test_every_loss_moves_the_network(two):
    for name in ranks.OPTIONS:
        assert all(gradient.abs().max() > 1e-3 for gradient in two[0][name].network[-1]), name


def test_t_is_the_same_number_on_every_rank(two, three):
    for found in (two, three):
        t = [rank["curricular"].state["t"] for rank in found]
        assert t[0] != 0
        # The ranks sum up one and the same gathered batch, and t is their own mean of it.
        for other in t:
            torch.testing.assert_close(other, t[0])


def test_first_weights_are_the_same_for_any_number_of_ranks(two, three):
    alone = Classifier(CLASSES, WIDTH, seed=3).weight.detach()
    for found in (two, three):
        # Drawn by blocks of classes from seeds of their own, whoever holds them: the same draws.
        assert torch.equal(torch.cat([rank["drawn"] for rank in found]), alone)
    assert 0.008 < alone.std() < 0.012


def test_ranks_sample_their_own_classes_and_keep_those_of_the_whole_batch(two):
    for step in range(ranks.STEPS):
        labels = ranks.batch(step)[1]
        for rank, found in enumerate(two):
            first, last = span(CLASSES, rank, 2)
            gradient = found["sampled"][0][1].weight[step]
            taken = set((gradient.abs().sum(1).nonzero()[:, 0] + first).tolist())
            assert taken >= {c for c in labels.tolist() if first <= c < last}
            assert len(gradient) == last - first


def test_ranks_sample_the_same_again_from_the_same_seed(two):
    for found in two:
        first, again = (seen.losses for _, seen in found["sampled"])
        for one, other in zip(first, again, strict=True):
            torch.testing.assert_close(one, other)  # another sample would be far from it


def test_no_rank_waits_for_another_where_no_row_has_a_label(three):
    for found in three:
        loss, gradient = found["unlabelled"]
        assert loss == 0
        assert (gradient == 0).all()


def test_every_rank_refuses_a_label_that_one_rank_met(three):
    message = f"label {CLASSES} in row 1 of rank 1's batch is not in [-1, {CLASSES})"
    assert [found["refused"] for found in three] == [message] * 3


# Shards.


@settings(deadline=None)
@given(st.integers(1, 2_000_000), st.integers(1, 64))
def test_shards_cover_the_classes_once_and_differ_by_one_at_most(classes, world):
    spans = [span(classes, rank, world) for rank in range(world)]
    assert (spans[0][0], spans[-1][1]) == (0, classes)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    sizes = [last - first for first, last in spans]
    assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 8))
def test_a_state_is_cut_joined_and_cut_again_for_other_ranks(classes, world, other):
    whole = {"weight": torch.arange(classes * 2.0).view(classes, 2), "t": torch.tensor(0.3)}
    joined = join_shards([cut_shard(whole, rank, world) for rank in range(world)])
    again = join_shards([cut_shard(joined, rank, other) for rank in range(other)])
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_state_of_three_ranks_goes_on_alone(three):
    joined = join_shards([found["curricular"].state for found in three])
    alone = Classifier(CLASSES, WIDTH)
    alone.load_state_dict(joined)
    assert alone.step == ranks.STEPS


def test_momentum_is_joined_as_the_weights_are():
    weight = torch.nn.Parameter(torch.randn(CLASSES, WIDTH))
    optimizer = torch.optim.AdamW([weight])
    weight.square().sum().backward()
    optimizer.step()
    kept = optimizer.state[weight]
    joined = join_shards([cut_shard(kept, rank, 3) for rank in range(3)])
    assert all(torch.equal(joined[name], kept[name]) for name in kept)


def test_shards_in_the_wrong_order_and_of_different_steps_are_refused():
    whole = {"weight": torch.zeros(11, 2), "step": torch.tensor(4)}
    parts = [cut_shard(whole, rank, 3) for rank in range(3)]
    assert [len(part["weight"]) for part in parts] == [3, 4, 4]
    with pytest.raises(ValueError, match="weight has"):
        join_shards([parts[1], parts[0], parts[2]])
    with pytest.raises(ValueError, match="step differs"):
        join_shards([*parts[:2], {**parts[2], "step": torch.tensor(5)}])


def test_a_rank_of_eight_holds_an_eighth_of_two_million_identities(monkeypatch):
    monkeypatch.setattr("training.sharded._place", lambda: (5, 8))
    classifier = Classifier(2_000_000, 2)
    assert classifier.weight.shape == (250_000, 2)
    # At width 512 in float32: 488 MiB of weights a rank, where the whole takes 3.8 GiB.
    assert math.isclose(classifier.weight.shape[0] * 512 * 4 / 2**20, 488.28, abs_tol=0.01)


def test_fewer_classes_than_ranks_are_refused(monkeypatch):
    monkeypatch.setattr("training.sharded._place", lambda: (0, 3))
    with pytest.raises(ValueError, match="2 classes cannot be cut over 3 ranks"):
        Classifier(2, WIDTH)


def test_shards_whose_t_was_rounded_on_other_processors_are_joined_and_another_t_is_refused():
    whole = {"weight": torch.zeros(11, 2), "t": torch.tensor(0.3)}
    parts = [cut_shard(whole, rank, 2) for rank in range(2)]
    parts[1]["t"] = torch.nextafter(parts[1]["t"], torch.tensor(1.0))
    assert join_shards(parts)["t"] == pytest.approx(0.3)
    parts[1]["t"] = torch.tensor(0.31)
    with pytest.raises(ValueError, match="t differs"):
        join_shards(parts)
