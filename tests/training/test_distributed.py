"""Ranks that torchrun began: two processes, joined by gloo, learn what one process learns."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.shared import REPOSITORY
from tests.training import two_ranks
from training import ranks
from training.data.batches import order
from training.loop import train
from training.sharded import join_shards

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """`one`: the run alone. `two`: by two ranks that stopped once, which left `stopped`."""
    folder = tmp_path_factory.mktemp("ranks")
    train(two_ranks.run(), folder / "one", log_every=1)
    done = subprocess.run(
        [*TORCHRUN, "-m", "tests.training.two_ranks", folder / "two"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[:5000]
    return folder


def kept(path) -> dict:
    return torch.load(path, weights_only=True)


def test_two_ranks_learn_the_network_that_one_process_learns(folder):
    one, two = (kept(folder / name / "last.pt")["learns"] for name in ("one", "two"))
    for name, begun in two_ranks.run().learns.state_dict().items():
        if name.startswith("network.") and begun.is_floating_point():
            moved = (one[name] - begun).abs().max()
            assert (two[name] - one[name]).abs().max() <= 1e-3 * moved, name
            assert moved > 0 or "running" in name, f"{name} did not learn"


def test_each_rank_keeps_its_shard_and_together_they_are_the_classifier(folder):
    shards = [
        {
            name.removeprefix("classifier."): tensor
            for name, tensor in kept(folder / "two" / name_of)["learns"].items()
            if name.startswith("classifier.")
        }
        for name_of in ("last.pt", "last-4-1of2.pt")
    ]
    whole = join_shards(shards)
    for name, tensor in whole.items():
        alone = kept(folder / "one" / "last.pt")["learns"][f"classifier.{name}"]
        torch.testing.assert_close(tensor, alone, rtol=1e-3, atol=1e-5)


def test_a_signal_to_one_rank_stops_both_after_the_same_step(folder):
    stopped = sorted((folder / "stopped").glob("last*"))
    assert [path.name for path in stopped] == ["last-2-1of2.pt", "last.pt"]
    assert [kept(path)["step"] for path in stopped] == [2, 2]


def test_only_rank_0_writes_the_log(folder):
    rows = [json.loads(line) for line in (folder / "two" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert rows[0]["round"]["ranks"] == 2


def test_a_checkpoint_of_two_ranks_is_not_gone_on_with_by_one(folder):
    with pytest.raises(ValueError, match=r"last\.pt was saved by 2 ranks; here are 1"):
        train(two_ranks.run(), folder / "two")


def test_ranks_share_out_the_batch_that_one_process_sees():
    whole = order(10, 4, 3, seed=1)
    assert sorted([*whole[0::2], *whole[1::2]]) == sorted(whole)


def test_dropout_differs_by_seed_step_and_rank_and_is_drawn_again_the_same(monkeypatch):
    def drawn(seed, step, rank):
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        ranks.seed_step(seed, step)
        return torch.rand(3).tolist()

    places = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    assert len({tuple(drawn(*place)) for place in places}) == 4
    assert drawn(1, 1, 0) == drawn(1, 1, 0)
