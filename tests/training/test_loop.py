"""The loop: checkpoints that resume bit for bit, and errors that name what is wrong."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.crops import drawn_crops
from training.loop import train
from training.losses import cosine_distillation
from training.recipes.ecacface_mobile import Recipe, rate

RECIPE = Recipe(batch=3, steps=4, warmup_steps=1, decay_steps=2)
CROPS = drawn_crops()


def answers() -> np.ndarray:
    """A teacher's: one direction a person, a little noise a crop."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(3, 512))[CROPS.labels_N] + 0.1 * rng.normal(size=(len(CROPS), 512))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def run(folder, recipe=RECIPE, teacher=None, **options):
    teacher = answers() if teacher is None else teacher
    return train(recipe, CROPS, teacher, CROPS, folder, fused=False, **options)


def weights_of(folder) -> dict[str, torch.Tensor]:
    kept = torch.load(folder / "last.pt", weights_only=True)
    return {**kept["network"], "weights": kept["weights"], "t": kept["t"]}


def test_a_run_broken_off_and_resumed_ends_in_the_very_same_weights(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("training.loop.cosine_distillation", _breaks_off_at(3))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", save_every_s=0)
    assert torch.load(tmp_path / "broken" / "last.pt", weights_only=True)["step"] == 3
    run(tmp_path / "broken")
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "broken")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def _breaks_off_at(step: int):
    """The loss, but for that step, which ends as a run does that is stopped from outside."""
    steps = itertools.count()

    def loss(*arguments):
        if next(steps) == step:
            raise KeyboardInterrupt
        return cosine_distillation(*arguments)

    return loss


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    with pytest.raises(ValueError, match="step 0 is nan"):
        run(tmp_path, teacher=np.full((len(CROPS), 512), np.nan, np.float32))


def test_the_network_alone_is_kept_with_its_recipe(tmp_path):
    state = run(tmp_path)
    kept = load_file(tmp_path / "network.safetensors")
    assert all(torch.equal(kept[k], v) for k, v in state.network.state_dict().items())


def test_a_checkpoint_of_another_recipe_is_refused_by_the_field_that_differs(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="another recipe: learning_rate, seed differ"):
        run(tmp_path, replace(RECIPE, learning_rate=1.0, seed=9))


def test_a_run_whose_rate_has_fallen_is_not_prolonged_but_its_stable_state_is(tmp_path):
    run(tmp_path)
    longer = replace(RECIPE, steps=6)
    with pytest.raises(ValueError, match=r"stable\.pt"):
        run(tmp_path, longer)
    shutil.copy(tmp_path / "stable.pt", tmp_path / "last.pt")
    assert run(tmp_path, longer).step == 6


def test_the_log_tells_what_the_validation_gave(tmp_path):
    run(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4
    assert 0 <= rows[-1]["equal_error_rate"] <= 1


def test_the_rate_rises_stays_and_falls_to_nearly_nothing():
    recipe = Recipe(steps=100, warmup_steps=10, decay_steps=20, learning_rate=1.0)
    rates = [rate(recipe, step) for step in range(100)]
    assert rates[0] == 0.1
    assert set(rates[9:81]) == {1.0}
    assert rates[99] == pytest.approx(1 / 20)
    assert rates[80:] == sorted(rates[80:], reverse=True)
