"""PAtt-Lite's and MZTS's ablations: arms that differ in nothing but what is compared, figures over
faces, the published attention asked in three ways, and the pages."""

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from tests.training.faces import (
    drawn_attributes,
    drawn_expressions,
    write_celeba,
    write_ferplus,
    write_mobilenet,
)
from training.__main__ import main
from training.evaluate.attributes import attribute_figures
from training.evaluate.expression import expression_figures
from training.experiments import attributes, expression
from training.experiments.attributes import ARMS
from training.experiments.attributes_page import FIGURES
from training.experiments.attributes_page import write_page as attributes_page
from training.experiments.changes import cell, changed, verdict
from training.experiments.expression import alone, arms
from training.experiments.expression_page import write_page as expression_page
from training.experiments.faces import attribute_rounds, expression_rounds
from training.experiments.runs import gather
from training.machine import Machine
from training.networks.patt_lite import PAttLite
from training.verbs import attributes_ablation, expression_ablation

CPU = Machine(torch.device("cpu"))
NAN = float("nan")


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory):
    """Data as the verbs find them, drawn."""
    data = tmp_path_factory.mktemp("data")
    (data / "weights").mkdir()
    splits = ("train", "validation", "test")
    counts = (2, 1, 4)
    parts = [
        drawn_expressions(n, s, i) for i, (n, s) in enumerate(zip(counts, splits, strict=True))
    ]
    write_ferplus(data / "ferplus", *parts)
    write_celeba(data / "celeba", *(drawn_attributes(16, s, i) for i, s in enumerate(splits)))
    write_mobilenet(data / "weights" / "mobilenet_v1_1.0_224.npz")
    return data


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Eight faces a step in place of 64, and three blocks in place of twelve."""
    for module, change in ((expression, {}), (attributes, {"depth": 3})):
        real = module.recipe_of_arm
        small = lambda *a, real=real, change=change: replace(real(*a), batch=8, **change)  # noqa: E731
        monkeypatch.setattr(module, "recipe_of_arm", small)


def swinging(values: dict[str, float], by: float = 0.01) -> dict:
    """figures and rounds over faces that swing by one point."""
    return {
        "hardware": {"cpu": "a cpu", "cores": 2, "gpu": None},
        "seconds": 600.0,
        "figures": values,
        "rounds": {n: [v, *(v + np.linspace(-by, by, 41))] for n, v in values.items()},
    }


def of_expression(arm, seed: int, accuracy: float, by_class: float | None = None) -> dict:
    names = ("accuracy", "macro_f1", "accuracy_shuffled", "accuracy_sorted")
    values = dict.fromkeys(names, accuracy)
    values["accuracy_sorted"] = by_class or accuracy
    return {"recipe": asdict(expression.recipe_of_arm(arm, seed)), **swinging(values)}


def of_attributes(arm: str, seed: int, accuracy: float, by: float = 0.01) -> dict:
    recipe = asdict(attributes.recipe_of_arm(arm, seed))
    told = swinging(dict.fromkeys(FIGURES, accuracy), by)
    return {"arm": arm, "recipe": recipe, "majority_mean_accuracy": 0.8, **told}


# What is compared


def test_five_arms_are_table_4_within_a_face_and_the_published_network():
    within = [(a, p) for a in ("none", "tokens") for p in ("none", "extraction")]
    assert arms() == [*within, ("batch", "extraction")]
    assert set(arms(full=True)) == {*arms(), ("batch", "none")}


def test_arms_differ_in_nothing_but_what_is_compared_and_their_names():
    for recipes, apart in (
        ([expression.recipe_of_arm(arm, 2) for arm in arms(full=True)], {"attention", "patches"}),
        (
            [attributes.recipe_of_arm(arm, 2) for arm in ARMS],
            {"zones", "supervise", "beta", "lam"},
        ),
    ):
        told = [asdict(recipe) for recipe in recipes]
        assert {n for n in told[0] if len({str(t[n]) for t in told}) > 1} == {"name", *apart}


# Figures over faces


def test_rounds_begin_with_the_figures_that_are_measured_everywhere_else():
    rng = np.random.default_rng(0)
    scores_NK, labels_N = rng.dirichlet(np.ones(4), 60), rng.integers(0, 4, 60)
    told = expression_figures(scores_NK, labels_N, list("abcd"), rounds=30)
    found = expression_rounds(scores_NK.argmax(1), labels_N, 4, rounds=30)
    for name, values in found.items():
        low, high = np.quantile(values[1:], (0.025, 0.975))
        wanted = [told[name], told[f"{name}_low"], told[f"{name}_high"]]
        np.testing.assert_allclose([values[0], low, high], wanted)


def test_an_attribute_that_nobody_has_is_left_out_of_the_mean_balanced_accuracy():
    rng = np.random.default_rng(1)
    scores_NA, present_NA = rng.random((50, 5)), rng.random((50, 5)) < 0.4
    present_NA[:, 2] = False
    told = attribute_figures(scores_NA, present_NA, list("abcde"), rounds=0)
    found = attribute_rounds(scores_NA >= 0.5, present_NA, rounds=20)
    for name, values in found.items():
        assert values.shape == (21,)
        assert values[0] == pytest.approx(told[name])


def test_a_change_is_paired_by_seed_and_by_draw():
    before = {s: of_expression(("none", "none"), s, v) for s, v in ((1, 0.1), (2, 0.3))}
    after = {s: of_expression(("tokens", "none"), s, v) for s, v in ((2, 0.4), (3, 0.9))}
    told = changed(before, after, "accuracy")
    assert (told["count"], told["mean"]) == (1, pytest.approx(0.1))
    assert told["faces_low"] == pytest.approx(0.1)  # the draws swing together
    assert cell(told, signed=True) == "+10.00 [+10.00, +10.00]"


@pytest.mark.parametrize(
    ("count", "over_seeds", "over_faces", "said"),
    [
        (3, (0.01, 0.02), (0.005, 0.03), "it helps here"),
        (3, (-0.02, -0.01), (-0.03, -0.005), "it hurts here"),
        (3, (0.01, 0.02), (-0.01, 0.03), "no difference is shown here"),
        (3, (-0.01, 0.02), (0.01, 0.03), "no difference is shown here"),
        (3, (0.01, 0.02), (-0.03, -0.01), "no difference is shown here"),
        (1, (NAN, NAN), (0.01, 0.03), "no difference is shown here"),
        (1, (NAN, NAN), (-0.01, 0.03), "no difference is shown here"),
    ],
)
def test_a_change_helps_only_where_seeds_and_faces_agree(count, over_seeds, over_faces, said):
    names = ("low", "high", "faces_low", "faces_high")
    told = dict(zip(names, (*over_seeds, *over_faces), strict=True))
    assert verdict({"count": count, **told}) == said


# The runs


def test_the_published_attention_alone_is_what_each_face_gets_in_a_batch_of_one():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="depend on the faces beside it"):
        network = PAttLite(attention="batch", size=80).eval()
    for conv in (m for m in network.modules() if isinstance(m, torch.nn.Conv2d)):
        torch.nn.init.kaiming_normal_(conv.weight)  # large enough that faces differ
    images = torch.randn(3, 3, 80, 80)
    with torch.no_grad():
        one_by_one = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(alone(network)(images), one_by_one, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(network(images), one_by_one, rtol=1e-3)
    assert network.attention == "batch"


@pytest.mark.parametrize("arm", [("tokens", "extraction"), ("batch", "extraction")])
def test_an_arm_is_asked_in_three_ways_and_not_trained_again(folder, tmp_path, arm):
    data = expression.read_data(folder)
    expression.run_arm(arm, 1, 2, data, tmp_path, CPU)
    [found] = gather(tmp_path)
    assert found["recipe"]["steps"] == 2
    assert all(len(values) == 401 for values in found["rounds"].values())
    names = {"accuracy", "macro_f1", "accuracy_shuffled", "accuracy_sorted"}
    assert found["figures"].keys() == names
    if arm[0] == "tokens":
        assert len({found["figures"][name] for name in names - {"macro_f1"}}) == 1
    log = tmp_path / expression.name_of(arm, 1) / "log.jsonl"
    written = log.stat().st_mtime_ns
    expression.run_arm(arm, 1, 2, data, tmp_path, CPU)
    assert log.stat().st_mtime_ns == written


def test_crops_of_celeba_are_made_smaller_once(folder):
    data = attributes.read_data(folder)
    assert isinstance(data.train.pixels, np.ndarray)
    assert data.train.pixels.shape == (16, *attributes.SIZE, 3)


@pytest.mark.parametrize(
    ("task", "verb", "first"),
    [
        ("expression", expression_ablation, ("none", "extraction")),
        ("attributes", attributes_ablation, "mzts"),
    ],
)
def test_one_command_does_what_is_missing_and_writes_the_page_beside_the_runs(
    task, verb, first, folder, monkeypatch, tmp_path, capsys
):
    module = {"expression": expression, "attributes": attributes}[task]
    runs = tmp_path / f"{task}-ablation" / "steps-2"
    module.run_arm(first, 1, 2, module.read_data(folder), runs, CPU)
    words = ["python -m training", f"{task}-ablation", "--seeds", "1", "--steps", "2"]
    places = ["--runs", str(tmp_path), "--data", str(folder), "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*words, *places])
    monkeypatch.setattr(verb, "this_machine", lambda device: CPU)
    if task == "expression":
        monkeypatch.setattr(verb, "arms", lambda full: [first, ("batch", "extraction")])
    else:
        monkeypatch.setattr(verb, "ARMS", ("mzts-zones", "mzts"))
    main()
    said = capsys.readouterr().out
    assert "run 1 of 1" in said
    assert "2 of " in (runs / f"{task}.md").read_text()
    assert json.loads((runs / f"{task}.json").read_text())["says"]
    main()
    assert "run 1" not in capsys.readouterr().out


@pytest.mark.parametrize("task", ["expression", "attributes"])
def test_absent_data_end_the_command_with_2(task, monkeypatch, tmp_path, capsys):
    places = ["--data", str(tmp_path / "nowhere"), "--runs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["python -m training", f"{task}-ablation", *places])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "found nothing at" in capsys.readouterr().err


# The pages


def test_the_expressions_page_sets_the_three_ways_and_the_papers_figures_apart(tmp_path):
    found = [
        of_expression(("none", "none"), 1, 0.7),
        of_expression(("tokens", "none"), 1, 0.8),
        of_expression(("batch", "extraction"), 1, 0.6, by_class=0.95),
    ]
    expression_page(found, arms(), 1, tmp_path / "expression.md")
    text = (tmp_path / "expression.md").read_text()
    assert "3 of 5 runs are finished" in text
    lines = text.splitlines()
    [plain] = [line for line in lines if line.startswith("| none | none | 1 |")]
    assert (
        plain == "| none | none | 1 | 70.00 [69.05, 70.95] | 70.00 [69.05, 70.95] | 82.88 | 10.0 |"
    )
    ways = "60.00 [59.05, 60.95] | 60.00 [59.05, 60.95] | 95.00 [94.05, 95.95] |"
    assert f"| over the batch (published) | extraction | {ways}" in lines
    says = json.loads((tmp_path / "expression.json").read_text())["says"]
    assert says == [line[2:] for line in lines if line.startswith("- ")]
    assert says[0] == (
        "Attention within a face in place of no attention (with no patches): accuracy on FERPlus's "
        "test by +10.00 [+10.00, +10.00] points, one seed: no difference is shown here."
    )
    assert "95.00 [94.05, 95.95] % in batches of one class after the other" in says[-1]
    assert (tmp_path / "expression.png").stat().st_size > 1000


def test_the_attributes_page_gives_both_intervals_and_no_figure_of_the_papers(tmp_path):
    found = [of_attributes("mzts-plain", seed, v) for seed, v in ((1, 0.80), (2, 0.84))]
    found += [of_attributes("mzts", seed, v) for seed, v in ((1, 0.81), (2, 0.85))]
    attributes_page(found, 3, tmp_path / "attributes.md")
    text = (tmp_path / "attributes.md").read_text()
    assert "4 of 9 runs are finished" in text
    half = 12.706 * 2  # of 80 and 84: s / sqrt(2) = 2
    both = f"82.00 [81.05, 82.95] [{82 - half:.2f}, {82 + half:.2f}]"
    assert f"| no zones | 2 | {both} |" in text
    assert "no zones -> three zones that distil themselves | 2 | +1.00 [+1.00, +1.00]" in text
    assert "an accuracy of 80.00 % on the test" in text
    told = json.loads((tmp_path / "attributes.json").read_text())
    assert (told["finished"], told["planned"], len(told["says"])) == (4, 9, 2)
    assert told["says"][0].endswith("2 seeds: it helps here.")


@pytest.mark.parametrize("write", [lambda p: expression_page([], arms(), 1, p), None])
def test_without_a_finished_run_there_is_no_page(write, tmp_path):
    write = write or (lambda page: attributes_page([], 3, page))
    with pytest.raises(ValueError, match="ablation is finished yet"):
        write(tmp_path / "page.md")
