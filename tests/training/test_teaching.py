"""Ways to teach compared: arms that differ in one thing, measured on the same people."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch

from tests.standin import recognition_graph
from tests.training.crops import drawn_crops, write_set
from training.experiments import teaching
from training.experiments.people import MEASURES
from training.experiments.teaching import ARMS, name_of, recipe_of_arm, run_arm
from training.experiments.teaching_page import write_page
from training.loop import train
from training.machine import Machine
from training.recipes import Sources
from training.recognition import begin

CPU = Machine(torch.device("cpu"))


def finished(arm: str, tar: float) -> dict:
    rounds = [tar, *(tar + np.linspace(-0.01, 0.01, 40))]
    return {
        "recipe": asdict(recipe_of_arm(arm, 1)),
        "hardware": {"cpu": "a cpu", "cores": 2, "gpu": None},
        "figures": dict.fromkeys(MEASURES, tar),
        "rounds": dict.fromkeys(MEASURES, rounds),
    }


def test_an_arm_differs_in_its_change_alone_and_all_see_as_many_crops():
    recipes = {arm: asdict(recipe_of_arm(arm, 1)) for arm in ARMS}
    changing = {"sets", "teachers", "consistent", "augmentation", "mixtures", "name"}
    for recipe in recipes.values():
        same = {field.name for field in fields(recipe_of_arm("today", 1))} - changing
        assert {k: recipe[k] for k in same} == {k: recipes["today"][k] for k in same}
        assert recipe["decay_steps"] == recipe["steps"]
    assert [arm for arm in ARMS if ARMS[arm].beside is None] == ["today"]


def test_the_page_tells_each_arm_beside_the_one_it_differs_from(tmp_path):
    found = [finished("today", 0.80), finished("consistent", 0.83)]
    write_page(found, finished("today", 0.79), tmp_path / "teaching.md")
    page = (tmp_path / "teaching.md").read_text()
    assert "2 of 6 runs are finished" in page
    assert "| +3.00 [+3.00, +3.00] |" in page  # the same people drawn on both sides
    assert "79.00 [78.05, 79.95]" in page
    facts = json.loads((tmp_path / "teaching.json").read_text())
    assert facts["arms"]["consistent"]["difference"]["says"] == "no difference is shown here"


def test_a_page_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"teaching\.md: no run of the teaching experiment"):
        write_page([], finished("today", 0.79), tmp_path / "teaching.md")


def test_an_arm_goes_on_from_the_kept_network_and_is_measured_on_validation(tmp_path, monkeypatch):
    for folder in ("identities", "teacher"):
        (tmp_path / folder).mkdir()
    for name in ("train", "validation"):
        write_set(drawn_crops(), tmp_path / "identities", name)
    (tmp_path / "teacher" / "one.onnx").write_bytes(recognition_graph())
    changes = {"sets": "train", "teachers": "one", "consistent": True, "batch": 4}
    monkeypatch.setitem(ARMS, "small", teaching.Arm("small", changes))
    sources = Sources(tmp_path, tmp_path / "cache")
    train(begin(recipe_of_arm("small", 1, 1), drawn_crops(), _answers, None, CPU), tmp_path / "w")
    warm = tmp_path / "w" / "network.safetensors"
    run_arm("small", 1, 1, warm, sources, tmp_path / "runs", CPU)
    found = json.loads((tmp_path / "runs" / name_of("small", 1) / "figures.json").read_text())
    assert set(found["figures"]) == set(MEASURES)
    assert found["recipe"]["teachers"] == "one"


def _answers(crops: np.ndarray) -> np.ndarray:
    wide = crops[:, ::5, ::5].reshape(len(crops), -1)[:, :512].astype(np.float32) - 127.5
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
