"""The loop: it goes on bit for bit from wherever it was stopped, and errors name what is wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.shared import REPOSITORY
from tests.training.runs import Recipe, differences, small_run, state_of
from training.checkpoint import keep_network, rounds_of
from training.loop import require_finite, train

RECIPE = Recipe()


@pytest.fixture(scope="module", name="killed")
def _killed(tmp_path_factory) -> str:
    """What the script of runs.py, which is killed at many moments, tells."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.runs", tmp_path_factory.mktemp("killed")],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_killed_in_any_step_ends_in_the_very_same_state(killed):
    assert re.findall(r"^step \d: (.*)$", killed, re.M) == ["the same"] * 5


def test_a_run_killed_while_it_saves_ends_in_the_very_same_state(killed):
    assert re.findall(r"^saving, call \d+: (.*)$", killed, re.M) == ["the same"] * 14
    assert re.findall(r"^writing, file \d: (.*)$", killed, re.M) == ["the same"] * 5


def test_a_full_disk_leaves_the_last_good_checkpoint_and_names_the_file(killed):
    assert re.search(r"/full/\S+ could not be written, with .* MB free", killed)
    lines = killed.splitlines()
    assert {"full disk: 17", "last good step: 3", "full, then room: the same"} <= set(lines)
    assert lines[-1] == "left over: []"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_stops(tmp_path, number):
    handler = signal.getsignal(number)
    stopping = small_run(before=lambda step: step == 2 and os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt, match="goes on from step 3"):
        train(stopping, tmp_path / "stopped")
    assert state_of(tmp_path / "stopped")["step"] == 3
    assert signal.getsignal(number) == handler
    train(small_run(), tmp_path / "stopped")
    train(small_run(), tmp_path / "whole")
    assert not differences(state_of(tmp_path / "whole"), state_of(tmp_path / "stopped"))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_names_the_step_and_spoils_nothing(
    tmp_path, number
):
    run = small_run()
    sound, factors = run.losses, iter([1, 1, 1, 1, number])

    def losses(batch):
        factor = next(factors)
        return {name: value * factor for name, value in sound(batch).items()}

    run.losses = losses
    with pytest.raises(ValueError, match=rf"small: the loss of step 4 is -?{number}; .*last\.pt"):
        train(run, tmp_path, save_every_s=0)
    assert state_of(tmp_path)["step"] == 4


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    run = small_run()
    run.learns["head"].bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ValueError, match=r"small: after step 0 head.bias is not finite"):
        train(run, tmp_path, save_every_s=0)
    assert state_of(tmp_path)["step"] == 0


def test_a_network_that_is_not_finite_is_not_kept_either(tmp_path):
    network = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(network.bias, float("nan"))
    with pytest.raises(ValueError, match=r"best\.safetensors is not written: bias is not finite"):
        keep_network(tmp_path / "best.safetensors", network, [{"name": "small"}])
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_recipe_is_refused_by_the_fields_that_differ(tmp_path):
    train(small_run(), tmp_path)
    other = replace(RECIPE, learning_rate=1.0, seed=9)
    with pytest.raises(
        ValueError, match=r"learning_rate 0.05 there, 1.0 here, seed 3 there, 9 here"
    ):
        train(small_run(other), tmp_path)


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"\0" * 1000)
    with pytest.raises(ValueError, match=r"last\.pt is no checkpoint"):
        train(small_run(), tmp_path)
    train(small_run(), tmp_path / "whole")
    whole = (tmp_path / "whole" / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last\.pt is no checkpoint"):
        train(small_run(), tmp_path)
    torch.save({"network": {}, "recipe": {}}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt was left by an earlier form of the loop"):
        train(small_run(), tmp_path)


def test_a_run_whose_rate_has_fallen_is_not_prolonged_but_its_stable_state_is(tmp_path):
    train(small_run(), tmp_path)
    longer = replace(RECIPE, steps=8)
    with pytest.raises(ValueError, match=r"stable\.pt"):
        train(small_run(longer), tmp_path)
    shutil.copy(tmp_path / "stable.pt", tmp_path / "last.pt")
    assert train(small_run(longer), tmp_path).step == 8
    train(small_run(longer), tmp_path / "whole")
    assert not differences(state_of(tmp_path / "whole"), state_of(tmp_path))


def test_the_log_of_a_resumed_run_is_that_of_an_unbroken_one(tmp_path):
    stopping = small_run(before=lambda step: step == 4 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train(stopping, tmp_path, log_every=1)
    shutil.copy(tmp_path / "stable.pt", tmp_path / "last.pt")  # of step 4, as a kill would leave it
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')  # and a row that was not written to its end
    train(small_run(), tmp_path, log_every=1)
    rows = rows_of(tmp_path)
    assert rows[0]["round"]["recipe"]["name"] == "small"
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "score" in row] == [2, 4, 6]
    assert [row["step"] for row in rows if "resumed" in row] == [4]
    assert {"rate", "told", "images_a_s"} <= rows[1].keys()


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small_run(), tmp_path, log_every=2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, round(event.value, 4)) for event in events.Scalars("loss")]
    assert shown == [(r["step"], round(r["loss"], 4)) for r in rows_of(tmp_path) if "loss" in r]


def test_the_best_network_by_validation_is_kept_beside_the_last(tmp_path):
    scores = iter([0.1, 0.9, 0.5])
    train(small_run(scores=lambda: next(scores)), tmp_path)
    assert rounds_of(tmp_path / "best.safetensors")[-1]["steps"] == 4
    assert rounds_of(tmp_path / "network.safetensors")[-1]["steps"] == 6


def test_the_network_alone_is_kept_with_every_recipe_that_it_went_through(tmp_path):
    first = small_run()
    train(first, tmp_path / "first")
    kept = tmp_path / "first" / "network.safetensors"
    weights = load_file(kept)
    ours = first.learns["network"].state_dict()
    assert all(torch.equal(weights[name], ours[name]) for name in ours)

    begun = {}
    second = small_run(replace(RECIPE, name="second", seed=4))
    second.validate = lambda: begun.update(second.learns["network"].state_dict()) or {"score": 1.0}
    second.validate_every = 1
    train(second, tmp_path / "second", warm=kept)
    rounds = rounds_of(tmp_path / "second" / "network.safetensors")
    assert [(r["name"], r["steps"]) for r in rounds] == [("small", 6), ("second", 6)]
    assert rounds_of(tmp_path / "second" / "best.safetensors")[0]["name"] == "small"


def test_a_warm_start_begins_with_the_given_weights_and_refuses_another_network(tmp_path):
    train(small_run(), tmp_path / "first")
    kept = tmp_path / "first" / "network.safetensors"
    still = replace(RECIPE, name="still", learning_rate=1e-30)
    run = small_run(still)
    train(run, tmp_path / "still", warm=kept)
    torch.testing.assert_close(run.learns["network"][0].weight, load_file(kept)["0.weight"])
    other = small_run()
    other.learns["network"] = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="holds another network"):
        train(other, tmp_path / "other", warm=kept)


def test_a_rate_of_nought_ends_the_run_early(tmp_path):
    run = small_run()
    run.rate = lambda step, found: 0.0 if len(found) == 2 else 0.01
    assert train(run, tmp_path).step == 4
    assert (tmp_path / "network.safetensors").exists()


def test_the_networks_gradient_is_cut_to_the_norm_asked_for(tmp_path):
    run = small_run(clip=1e-3)
    norms = []
    step = run.optimizer.step
    parameters = list(run.learns["network"].parameters())
    run.optimizer.step = lambda: (
        norms.append(torch.cat([p.grad.flatten() for p in parameters]).norm().item()),
        step(),
    )
    train(run, tmp_path)
    assert max(norms) == pytest.approx(1e-3, rel=1e-3)


def test_a_validation_that_meets_no_number_ends_the_run_with_its_name(tmp_path):
    def answers():
        if len(seen) == 2:
            require_finite(torch.tensor([[1.0], [float("nan")], [2.0]]), "the embedding of crop")
        seen.append(0.5)
        return 0.5

    seen = []
    named = "the embedding of crop 1 of 3 is not finite"
    fault = rf"small: the validation after 6 steps failed: {named}; .*last\.pt holds"
    with pytest.raises(ValueError, match=fault):
        train(small_run(scores=answers), tmp_path)
    assert rounds_of(tmp_path / "best.safetensors")[-1]["steps"] == 2
    assert not (tmp_path / "network.safetensors").exists()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_is_never_the_best(tmp_path, wrong):
    scores = iter([wrong, 0.2, 0.1])
    train(small_run(scores=lambda: next(scores)), tmp_path)
    assert rounds_of(tmp_path / "best.safetensors")[-1]["steps"] == 4
