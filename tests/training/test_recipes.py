"""Recipes of recognition: the papers' settings, one command each, and clear words where one cannot
run."""

import io
import os
import signal
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.standin import recognition_graph
from tests.training.crops import drawn_crops, png, write_set
from tests.training.runs import differences, state_of
from training import ranks
from training.__main__ import main
from training.checkpoint import rounds_of
from training.data.batches import Batch
from training.data.recordio import RecordWriter
from training.evaluate.pairs import Pairs, contiguous_folds
from training.evaluate.pairsets import PairSet
from training.loop import NotFinite, train
from training.losses import cosine_distillation
from training.machine import Machine, this_machine
from training.networks.ecacface import MobileFaceNet
from training.recipes import Sources, with_settings
from training.recipes.recognition import RECIPES, ecacface_mobile, sranet50_casia, tiny
from training.recognition import (
    STARTED_ON,
    as_input,
    begin,
    embed,
    network_of,
    prepare,
    rate,
    recipe_of,
)

CROPS = drawn_crops()
CPU = Machine(torch.device("cpu"))
SMALL = replace(tiny(), batch=4)


def answers(crops=CROPS, width=512) -> np.ndarray:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(len(crops.people), width))[crops.labels_N]
    found = found + 0.1 * rng.normal(size=found.shape)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def npy(array) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


def command(monkeypatch, tmp_path, *arguments) -> None:
    """`python -m training train ...` in this process, its runs below tmp_path."""
    places = ["--runs", tmp_path / "runs", "--threads", "1", "--plain"]
    words = ["python -m training", "train", *arguments, *places]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    main()


def test_the_shipped_recipe_is_what_was_shipped():
    recipe = ecacface_mobile()
    shipped = {
        "attention": "esca",
        "embedding": 512,
        "batch": 64,
        "warmup_steps": 100,
        "learning_rate": 2.5e-3,
        "weight_decay": 0.02,
        "scale": 64.0,
        "alpha": 0.99,
        "seed": 1,
    }
    assert shipped.items() <= asdict(recipe).items()
    # Its loss was the distance plus half of (cross-entropy / s).
    assert (recipe.distillation, recipe.classification * recipe.scale) == (1, 0.5)


@pytest.mark.parametrize(
    ("name", "steps", "milestones"),
    [
        ("ecacface-mobile-casia", 50 * 889, (28 * 889, 38 * 889, 46 * 889)),
        ("ecacface-ir101-ms1mv2", 24 * 11_372, (10 * 11_372, 18 * 11_372, 22 * 11_372)),
        ("sranet-50-casia", 80_000, (30_000, 50_000, 65_000)),
        ("sranet-100-ms1m", 280_000, (100_000, 180_000, 240_000)),
    ],
)
def test_the_papers_schedules_divide_the_rate_by_ten_where_they_say(name, steps, milestones):
    recipe = RECIPES[name]()
    assert (recipe.steps, recipe.milestones) == (steps, milestones)
    first, second, third = milestones
    rates = [rate(recipe, s) for s in (0, first - 1, first, second, third, steps - 1)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 1e-3, 1e-4, 1e-4])


def test_the_rate_rises_stays_and_falls_to_nearly_nothing():
    recipe = replace(SMALL, steps=100, warmup_steps=10, decay_steps=20, learning_rate=1.0)
    rates = [rate(recipe, step) for step in range(100)]
    assert rates[0] == 0.1
    assert set(rates[9:81]) == {1.0}
    assert rates[99] == pytest.approx(1 / 20)
    assert rates[80:] == sorted(rates[80:], reverse=True)


def test_every_recipe_has_a_network_and_says_in_its_docstring_what_it_is():
    for name, recipe in RECIPES.items():
        assert recipe().name == name
        assert recipe.__doc__
        with torch.device("meta"):
            assert network_of(recipe())


def test_sranet_takes_both_attentions_and_its_own_scale_of_pixels():
    with torch.device("meta"):
        parameters = sum(p.numel() for p in network_of(sranet50_casia()).parameters())
    assert parameters == 49_213_496
    pixels = np.full((1, 2, 2, 3), 255, np.uint8)
    assert as_input(pixels, CPU.device, 128.0).max() == 127.5 / 128


def test_the_loss_is_the_weighted_sum_of_its_parts():
    recipe = replace(SMALL, distillation=2.0, classification=0.25)
    teacher = answers()
    run = begin(recipe, CROPS, teacher, None, CPU)
    batch = Batch(CROPS.pixels_NHWC[:4], np.arange(4))
    found = run.losses(batch)
    assert found["loss"].item() == pytest.approx(
        2 * found["distance"].item() + 0.25 * found["cross_entropy"].item(), rel=1e-6
    )
    embeddings = run.learns["network"](as_input(batch.pixels_NHWC, CPU.device))
    wanted = cosine_distillation(embeddings, torch.from_numpy(teacher[:4]))
    torch.testing.assert_close(found["distance"], wanted)


def test_crops_without_a_person_are_learnt_from_the_teacher_alone():
    crops = drawn_crops(people=2, each=2)
    crops.labels_N[:] = -1
    run = begin(replace(SMALL, distillation=1.0), crops, answers(crops), None, CPU)
    found = run.losses(Batch(crops.pixels_NHWC, np.arange(4)))
    assert found["cross_entropy"] == 0
    torch.testing.assert_close(found["loss"], found["distance"])


def test_the_classes_begin_at_the_teachers_mean_answer_where_asked():
    teacher = answers()
    run = begin(replace(SMALL, teacher_start=True, distillation=1.0), CROPS, teacher, None, CPU)
    run.fresh(False)
    mean = teacher[CROPS.labels_N == 1][:STARTED_ON].mean(0)  # each person has more crops
    weight = run.learns["classifier"].weight[1].detach().numpy()
    np.testing.assert_allclose(weight, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize(
    ("decays", "spared"),
    [("matrices", {"norm", "slope", "classes"}), ("all but norms", {"norm"}), ("all", set())],
)
def test_weight_decay_is_for_what_the_recipe_says(decays, spared):
    run = begin(replace(SMALL, decays=decays), CROPS, None, None, CPU)
    network = run.learns["network"]
    parameters = {
        "norm": network.stem[1].weight,
        "slope": network.stem[2].weight,
        "matrix": network.stem[0].weight,
        "classes": run.learns["classifier"].weight,
    }
    groups = run.optimizer.param_groups
    undecayed = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert {name for name, p in parameters.items() if id(p) in undecayed} == spared
    assert sum(len(g["params"]) for g in groups) == sum(1 for _ in run.learns.parameters())


def test_embedding_leaves_every_module_in_the_mode_it_was_in():
    network = MobileFaceNet("none").train()
    network.head[-1].eval()
    found = embed(network, CROPS.pixels_NHWC[:3], batch=2)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert network.stem.training
    assert not network.head[-1].training


def test_an_older_rounds_recipe_still_names_its_network():
    recipe = recipe_of({"name": "old", "attention": "eca", "embedding": 128, "margin_weight": 0.5})
    assert (recipe.network, recipe.attention, recipe.embedding) == ("mobile", "eca", 128)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("depth=3", r"--set depth=3: field=value, with a field of name, network, attention"),
        ("batch", r"--set batch: field=value"),
        ("batch=many", r"--set batch=many: it is 8 now, so int is wanted"),
        ("batch=2.5", r"so int is wanted"),
        ("nesterov=1", r"so bool is wanted"),
        ("milestones=a", r"so tuple is wanted"),
        ("margin=wide", r"it is None now, so float is wanted"),
        ("milestones=(1, 'a')", r"so whole numbers are wanted"),
        ("batch=0", r"--set batch=0: 1 is the least"),
        ("steps=0", r"1 is the least"),
        ("validate_every=-1", r"1 is the least"),
        ("seed=-1", r"--set seed=-1: 0 is the least"),
        ("name=", r"--set name=: it names the run's folder"),
        ("name=../mine", r"it names the run's folder"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        with_settings(tiny(), [setting])


def test_settings_take_the_place_of_the_recipes():
    changed = with_settings(
        tiny(), ["attention=eca", "margin=1", "milestones=4,8", "sample=0.5", "nesterov=True"]
    )
    wanted = {"attention": "eca", "margin": 1.0, "milestones": (4, 8), "nesterov": True}
    assert (wanted | {"sample": 0.5}).items() <= asdict(changed).items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "ir51"}, "network 'ir51' is not one of mobile, mobile56, ir50"),
        ({"attention": "everywhere"}, "'everywhere'"),
        ({"loss": "hinge"}, "hinge"),
        ({"optimizer": "lion"}, "optimizer 'lion' is not one of muon, adamw, sgd"),
        ({"decays": "some"}, "decays 'some' is not one of"),
        ({"augmentation": "wild"}, "augmentation 'wild' is not one of none, flip"),
        ({"network": "mobile56"}, "crops are 112 x 112 px; mobile56 takes 56 x 56"),
        ({"classification": 0.0}, "nothing to learn from"),
        ({"distillation": 1.0}, "--teacher is not given"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_before_its_first_step(change, message):
    with pytest.raises(ValueError, match=message):
        begin(replace(SMALL, **change), CROPS, None, None, CPU)


def test_answers_of_another_set_or_width_are_refused():
    with pytest.raises(ValueError, match=r"answers are \(12, 128\); 12 crops and embedding=512"):
        begin(replace(SMALL, distillation=1.0), CROPS, answers(width=128), None, CPU)


def asked(crops_NHWC: np.ndarray) -> np.ndarray:
    """A teacher of 1,024 numbers: two views of each crop's small picture, of unit length."""
    small = crops_NHWC[:, ::8, ::8].reshape(len(crops_NHWC), -1).astype(np.float32)
    wide = np.concatenate([small, 255 - small], axis=1)[:, :1024] - 127.5
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def test_teachers_are_asked_about_what_is_seen_and_mixtures_are_nobody(tmp_path):
    recipe = replace(
        SMALL, distillation=1.0, consistent=True, mixtures=1.0, steps=2, teacher_start=True
    )
    run = begin(recipe, CROPS, asked, None, CPU)
    train(run, tmp_path)
    [(_, batch)] = run.batches(0, 1)
    found = run.losses(batch)
    assert found["cross_entropy"] == 0
    target = run.learns["target"](torch.from_numpy(batch.answers_ND))
    embeddings = run.learns["network"](as_input(batch.pixels_NHWC, CPU.device))
    torch.testing.assert_close(found["distance"], cosine_distillation(embeddings, target))


def test_the_targets_axes_are_kept_with_the_run_that_they_were_fitted_for(tmp_path):
    recipe = replace(SMALL, distillation=1.0, consistent=True, steps=2)
    first = begin(recipe, CROPS, asked, None, CPU)
    train(first, tmp_path)
    again = begin(recipe, CROPS, asked, None, CPU)
    train(again, tmp_path)
    fitted = first.learns["target"].matrix_DW
    assert not torch.equal(fitted, torch.eye(1024, 512))
    # A copy of the same bytes, on any processor.
    assert torch.equal(again.learns["target"].matrix_DW, fitted)


def test_a_warmed_student_begins_near_its_teachers(tmp_path):
    begun = begin(SMALL, CROPS, None, None, CPU)
    train(begun, tmp_path / "before")
    said = torch.from_numpy(embed(begun.learns["network"], CROPS.pixels_NHWC))
    turned = torch.linalg.qr(torch.randn(512, 512, generator=torch.manual_seed(1))).Q
    recipe = replace(SMALL, distillation=1.0, classification=0.0)
    run = begin(recipe, CROPS, (said @ turned).numpy(), None, CPU)
    run.learns["network"].load_state_dict(begun.learns["network"].state_dict())
    run.fresh(True)
    target = run.learns["target"](said @ turned)
    torch.testing.assert_close(target, said, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "teacher", "message"),
    [
        ({"mixtures": 0.5}, answers(), "mixtures=0.5 need teachers that are asked"),
        ({}, answers(CROPS)[:5], r"answers are \(5, 512\); 12 crops"),
        ({}, lambda crops: np.ones((len(crops), 128), np.float32), "answers are 128 numbers wide"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_the_first_step(change, teacher, message):
    with pytest.raises(ValueError, match=message):
        begin(replace(SMALL, distillation=1.0, **change), CROPS, teacher, None, CPU)


def test_sets_and_teachers_come_by_name_and_a_share_is_part_of_every_batch(tmp_path):
    (tmp_path / "identities").mkdir()
    (tmp_path / "teacher").mkdir()
    for name, each in (("train", 3), ("families", 2)):
        write_set(drawn_crops(people=2, each=each), tmp_path / "identities", name)
    (tmp_path / "identities" / "validation.csv").write_bytes(
        write_set(CROPS, tmp_path / "identities", "validation").read_bytes()
    )
    for name in ("one", "two"):
        (tmp_path / "teacher" / f"{name}.onnx").write_bytes(recognition_graph())
    recipe = replace(
        SMALL,
        distillation=1.0,
        sets="train families:0.25",
        teachers="one two",
        consistent=True,
    )
    sources = Sources(tmp_path, tmp_path / "cache")
    run = prepare(recipe, sources, CPU)
    assert (run.recipe.crops, run.recipe.people) == (10, 2)
    assert run.learns["target"].matrix_DW.shape == (1024, 512)
    for _, batch in run.batches(0, 4):
        assert (batch.indices_N >= 6).tolist() == [False, False, False, True]
        assert batch.answers_ND.shape == (4, 1024)
    for change, message in (
        ({"teachers": "one one"}, "names none, or one twice"),
        ({"teachers": ""}, "names none, or one twice"),
        ({"teachers": "three"}, r"found nothing at .*three\.onnx"),
        ({"sets": "train families:0.01"}, "families's share of 0.01 is no crop of a batch of 4"),
        ({"sets": "train:0.5"}, "leaves 2 of 4 crops of a batch"),
        ({"sets": "train strangers"}, r"nothing at .*strangers\.csv"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            prepare(replace(recipe, **change), sources, CPU)
    (tmp_path / "identities" / "families.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither families\.zip nor a folder"):
        prepare(recipe, Sources(tmp_path, tmp_path / "elsewhere"), CPU)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (drawn_crops(side=96), "crops are 96 x 96 px; mobile takes 112 x 112"),
        (
            drawn_crops(people=1),
            r"two people, one of them with two crops; here are 4 .* of 1 people",
        ),
        (drawn_crops(each=1), r"here are 3 crops of 3 people"),
        (replace(CROPS, labels_N=np.where(CROPS.labels_N, CROPS.labels_N, -1)), "4 have none"),
    ],
)
def test_a_validation_set_without_pairs_is_refused_before_the_first_step(validation, message):
    with pytest.raises(ValueError, match=message):
        begin(SMALL, CROPS, None, validation, CPU)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"answers\.npy is no \.npy of a teacher's answers"),
        (b"text", r"answers\.npy is no \.npy of a teacher's answers"),
        (npy(np.zeros((12, 512), np.int64)), r"holds int64; a teacher's answers are float32"),
    ],
)
def test_stored_answers_that_are_none_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "answers.npy").write_bytes(content)
    listed, teacher = write_set(CROPS, tmp_path), tmp_path / "answers.npy"
    with pytest.raises(ValueError, match=message):
        prepare(
            replace(SMALL, distillation=1.0),
            Sources(tmp_path, tmp_path / "cache", (listed,), teacher=teacher),
            CPU,
        )


def test_a_teacher_of_whom_nothing_would_be_learnt_is_refused(tmp_path):
    sources = Sources(tmp_path, tmp_path / "cache", (write_set(CROPS, tmp_path),), teacher=tmp_path)
    with pytest.raises(ValueError, match="tiny learns from no teacher: --teacher wants"):
        prepare(SMALL, sources, CPU)


def test_people_of_two_recs_are_not_taken_for_one_another(tmp_path):
    places = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        places.append(tmp_path / name / "train.rec")
        with RecordWriter(places[-1]) as out:
            for label, pixels in zip(CROPS.labels_N, CROPS.pixels_NHWC, strict=True):
                out.add(int(label), png(pixels))
    sources = Sources(tmp_path, tmp_path / "cache", tuple(places))
    assert prepare(SMALL, sources, CPU).recipe.people == 6


def test_the_fused_step_is_a_cpus_and_cuda_must_be_there(monkeypatch):
    monkeypatch.setattr(ranks, "join", lambda device: torch.device("cuda"))
    with pytest.raises(ValueError, match="fused step is a CPU's"):
        this_machine("cuda", step="fused")
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds no CUDA device"):
        this_machine("cuda")


def pair_set(same, folds=2) -> PairSet:
    count = len(same)
    first = 2 * np.arange(count) % len(CROPS)
    pairs = Pairs(
        [("a", i + 1) for i in range(len(CROPS))],
        first,
        first + 1,
        np.array(same),
        contiguous_folds(count, folds),
    )
    return PairSet("drawn", CROPS.pixels_NHWC, pairs)


@pytest.mark.parametrize("same", [True, False])
def test_validation_pairs_of_one_kind_are_refused_by_their_counts(same):
    counts = "6 mated and 0 non-mated" if same else "0 mated and 6 non-mated"
    with pytest.raises(ValueError, match=f"the validation set drawn: .*here are {counts} pairs"):
        begin(SMALL, CROPS, None, pair_set([same] * 6), CPU)


def test_few_pairs_validate_by_what_they_can_show():
    run = begin(SMALL, CROPS, None, pair_set([True, False] * 3), CPU)
    assert (set(run.validate()), run.best) == ({"accuracy"}, "accuracy")
    run = begin(SMALL, CROPS, None, CROPS, CPU)
    assert set(run.validate()) == {"tar_without_false_match", "equal_error_rate"}
    assert run.best == "tar_without_false_match"


@pytest.mark.parametrize("validation", [CROPS, pair_set([True, False] * 3)], ids=["crops", "pairs"])
def test_a_network_of_no_number_passes_no_validation(validation):
    run = begin(SMALL, CROPS, None, validation, CPU)
    with torch.no_grad():  # the statistics of a network whose weights are still finite
        run.learns["network"].stem[1].running_var.fill_(float("nan"))
    with pytest.raises(NotFinite, match="the embedding of crop 0 of 12 is not finite"):
        run.validate()


def test_a_set_of_one_person_is_refused():
    with pytest.raises(
        ValueError, match=r"has one \(p0\): classification needs at least two people"
    ):
        begin(SMALL, drawn_crops(people=1), None, None, CPU)


def test_one_command_trains_from_labels_and_stored_answers_and_keeps_what_it_was(
    monkeypatch, tmp_path, capsys
):
    listed = write_set(CROPS, tmp_path)
    np.save(tmp_path / "answers.npy", answers())
    given = ["--train", listed, "--validation", listed, "--teacher", tmp_path / "answers.npy"]
    settings = ["--set", "batch=4", "distillation=1", "name=mine", "--steps", "2"]
    command(monkeypatch, tmp_path, "tiny", *given, *settings, "--decay-steps", "1")
    [round_] = rounds_of(tmp_path / "runs" / "mine" / "network.safetensors")
    expected = {"steps": 2, "batch": 4, "crops": 12, "people": 3, "name": "mine"}
    assert expected.items() <= round_.items()
    network = network_of(recipe_of(round_))
    network.load_state_dict(load_file(tmp_path / "runs" / "mine" / "network.safetensors"))
    assert "mine: found 12 crops of 3 people" in capsys.readouterr().out
    assert (tmp_path / "runs" / "mine" / "best.safetensors").exists()


def test_a_teacher_is_asked_set_by_set_so_that_each_sets_answers_are_found_again(
    monkeypatch, tmp_path
):
    asked = []

    def told(graph, pixels, **_):
        asked.append((graph.name, len(pixels)))
        return np.full((len(pixels), 512), len(asked), np.float32)

    monkeypatch.setattr("training.recognition.teacher_embeddings", told)
    paths = tuple(write_set(drawn_crops(each=n), tmp_path, f"set{n}") for n in (2, 3))
    (tmp_path / "t.onnx").touch()
    sources = Sources(tmp_path, tmp_path / "cache", paths, teacher=tmp_path / "t.onnx")
    run = prepare(replace(SMALL, distillation=1.0), sources, CPU)
    assert asked == [("t.onnx", 6), ("t.onnx", 9)]
    assert (run.recipe.crops, run.recipe.people) == (15, 3)


def test_a_recipes_run_stopped_and_gone_on_with_ends_in_the_very_same_state(tmp_path):
    recipe = replace(SMALL, steps=3, decay_steps=1, sample=0.5, distillation=1.0, optimizer="muon")

    def run(stop=None):
        begun = begin(recipe, CROPS, answers(), None, CPU)
        losses, steps = begun.losses, iter(range(9))
        begun.losses = lambda batch: (
            next(steps) == stop and os.kill(os.getpid(), signal.SIGTERM),
            losses(batch),
        )[1]
        return begun

    train(run(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(run(stop=1), tmp_path / "stopped")
    train(run(), tmp_path / "stopped")
    whole = state_of(tmp_path / "whole")
    assert not differences(whole, state_of(tmp_path / "stopped"))
    assert whole["learns.classifier.step"] == 3


def test_licensed_data_that_are_absent_end_the_command_with_2_found_and_expected(
    monkeypatch, tmp_path, capsys
):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, tmp_path, "ecacface-ir50-casia")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "expected CASIA-WebFace (refined) (455,594 crops of 10,575 people)" in said
    assert "found no --train" in said
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path, "sranet-100-ms1m", "--train", tmp_path / "faces.rec")
    assert f"found nothing at {tmp_path / 'faces.rec'}" in capsys.readouterr().err


def test_threads_are_one_or_more(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path, "tiny", "--threads", "0")
    assert "--threads: '0' is no whole number from 1 on" in capsys.readouterr().err


def test_a_network_to_begin_with_that_is_none_is_refused_by_name(monkeypatch, tmp_path):
    (tmp_path / "text.safetensors").write_text("no weights")
    given = ["--train", write_set(CROPS, tmp_path), "--warm", tmp_path / "text.safetensors"]
    with pytest.raises(SystemExit, match=r"text\.safetensors holds no weights"):
        command(monkeypatch, tmp_path, "tiny", *given, "--set", "batch=4")


def test_an_unknown_recipe_lists_what_there_is(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=r"no recipe 'resnet'; there are ecacface-mobile, .*tiny"):
        command(monkeypatch, tmp_path, "resnet")


def test_help_tells_every_recipe(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COLUMNS", "2000")  # or names are broken at their hyphens
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path, "--help")
    said = capsys.readouterr().out
    assert all(name in said for name in (*RECIPES, "patt-lite", "mzts-celeba", "hsanet-3x3"))


def test_a_training_set_of_another_kind_is_refused_by_name(monkeypatch, tmp_path):
    (tmp_path / "faces.tar").touch()
    with pytest.raises(SystemExit, match=r"faces\.tar is no set of crops"):
        command(monkeypatch, tmp_path, "tiny", "--train", tmp_path / "faces.tar")
