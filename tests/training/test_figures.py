"""The verb: figures, table and plots of several graphs over a small folder of data."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from service.decision import Calibration
from tests.standin import recognition_graph
from tests.training.crops import drawn_crops, png, write_set
from tests.training.peers import peer
from training.__main__ import main
from training.data.verification_bin import write_bin
from training.evaluate.embeddings import fingerprint, names_of, open_networks
from training.evaluate.figures import evaluate, plain
from training.evaluate.table import table
from training.graphs import open_graph

SILENT = {"say": lambda _: None}


def lie(crops, kinds: dict[int, str]):
    """The crops under other names; those without a person are labelled -1."""
    names = [kinds.get(i, name) for i, name in enumerate(crops.paths)]
    alone = np.array([i in kinds for i in range(len(names))])
    return replace(crops, paths=names, labels_N=np.where(alone, -1, crops.labels_N))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """identities/ of drawn people, and a folder of pairs among them."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "identities").mkdir()
    every = drawn_crops(people=12, each=3)
    for part in ("validation", "calibration", "train"):
        write_set(every, folder / "identities", part)
    strangers = {i: f"utk/{10 + i}_{i % 2}_{i % 5}_2017{i}.png" for i in range(36)}
    write_set(lie(every, strangers), folder / "identities", "unlabelled")
    faces = {i: f"ff/{5 * i}.png" for i in range(36)}  # every second is kept out of training
    write_set(lie(every, faces), folder / "identities", "strangers")
    folds = [(0, 1, 2), (6, 7, 8)]  # of mated pairs, then as many of this person and the next
    lines = ["2\t3"]
    for fold in folds:
        lines += [f"p{p}\t1\t2" for p in fold]
        lines += [f"p{p}\t1\tp{p + 1}\t2" for p in fold]
    (folder / "pairs.txt").write_text("\n".join(lines))
    for name, pixels in zip(every.paths, every.pixels_NHWC, strict=True):
        who, number = name.removesuffix(".png").split("/")
        path = folder / "crops" / who / f"{who}_{int(number) % 3 + 1:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    return folder


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("ours")
    (folder / "model.onnx").write_bytes(recognition_graph())
    return [folder / "model.onnx", peer(folder / "peer.onnx", batch=1)]


@pytest.fixture(scope="module")
def written(data, graphs, tmp_path_factory) -> Path:
    """What the verb leaves, on two graphs and a set of pairs."""
    out = tmp_path_factory.mktemp("out")
    asked = f"mine={data / 'crops'},{data / 'pairs.txt'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            [
                *("training", "evaluate", *map(str, graphs), "--data", str(data)),
                *("--runs", str(out / "runs"), "--out", str(out / "deep" / "figures.json")),
                *("--pairs", asked, "--flip", "--table", str(out / "table.md")),
                *("--pictures", str(out / "pictures")),
                *("--picture", str(out / "calibration.png")),
            ],
        )
        main()
    return out


def test_the_first_graphs_blocks_stand_where_a_card_is_made_of_them(written, graphs):
    figures = json.loads((written / "deep" / "figures.json").read_text())
    first, second = figures["graphs"]
    for block in ("sha256", "metrics", "calibration"):
        assert figures[block] == first[block] != second[block]
    assert set(first["metrics"]) == {"validation"}
    assert [len(g["identification"]["galleries"]) for g in (first, second)] == [3, 3]
    assert first["identification"]["galleries"][-1]["distractors"] == 12 + 36
    assert set(first["verification"]) == {"mine", "mine, flip"}
    assert first["groups"]["fmr"]["sex"]["female"]["people"] == 18
    assert "distilled" in first["groups"]["data"]


def test_strangers_who_are_kept_out_of_training_are_a_population_of_each_calibration(written):
    figures = json.loads((written / "deep" / "figures.json").read_text())
    for graph in figures["graphs"]:
        calibration = Calibration.from_manifest(graph["calibration"])
        assert {name: one.crops for name, one in calibration.populations.items()} == {
            "fairface": 18
        }
    assert "FMR of population fairface" in (written / "table.md").read_text()


def test_the_table_has_a_column_a_graph_and_a_line_a_measure(written, graphs):
    lines = (written / "table.md").read_text().splitlines()
    assert lines[0] == f"| | {graphs[0].parent.name} | peer |".replace("| |", "|  |")
    rows = {line.split(" | ")[0].strip("| "): line.count("|") for line in lines if "|" in line}
    for measure in (
        "mine accuracy",
        "mine, flip TAR @ FAR 1e-4",
        "FNMR @ FMR 0.001, unseen people",
        "rank-1, 60 enrolled",
        "FNIR @ FPIR 1e-2, 12 enrolled",
        "FMR among strangers, all (36)",
    ):
        assert rows[measure] == 4
    assert any(line.startswith("Groups: ") and "distilled" in line for line in lines)


def test_every_picture_is_written_and_shows_something(written, graphs):
    ours = "".join(c if c.isalnum() else "-" for c in graphs[0].parent.name)
    names = [f"{kind}-{of}" for kind in ("calibration", "groups") for of in (ours, "peer")]
    sets = ("mine", "mine-flip", "identities-calibration")
    names += [f"{kind}-{of}" for kind in ("det", "roc") for of in sets]
    found = {path.stem for path in (written / "pictures").iterdir()}
    assert found == {*names, "identification"}
    for path in [*(written / "pictures").iterdir(), written / "calibration.png"]:
        assert cv2.imread(str(path)).std() > 5, path


def test_what_was_measured_once_is_not_asked_for_again(written, data, graphs, monkeypatch):
    def never(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr("training.evaluate.embeddings.embed_all", never)
    again = evaluate(graphs, data, written / "runs" / "cache", **SILENT)
    kept = json.loads((written / "deep" / "figures.json").read_text())
    assert again[1].figures["calibration"] == kept["graphs"][1]["calibration"]


def test_the_cache_tells_one_pixel_apart(graphs, tmp_path):
    [network] = open_networks(graphs[:1], tmp_path, threads=1)
    crops = np.array(drawn_crops(people=2, each=2).pixels_NHWC)
    before = network.embeddings(crops)
    crops[3, 50, 50] ^= 255
    after = network.embeddings(crops)
    assert (before[:3] == after[:3]).all()
    assert (before[3] != after[3]).any()


def test_crops_beyond_the_first_block_are_in_the_fingerprint():
    crops = np.array(drawn_crops(people=2, each=2).pixels_NHWC)
    before = fingerprint(crops, block=2)
    crops[3, 0, 0] ^= 1
    assert fingerprint(crops, block=2) != before
    assert fingerprint(crops, block=3) == fingerprint(crops)


def test_a_crop_and_its_mirror_image_have_one_flipped_embedding(graphs, tmp_path):
    [network] = open_networks(graphs[:1], tmp_path, threads=1)
    crops = drawn_crops(people=2, each=2).pixels_NHWC
    straight, mirrored = network.embeddings(crops), network.embeddings(crops[:, :, ::-1])
    found = network.flipped(crops)
    np.testing.assert_allclose(found, network.flipped(crops[:, :, ::-1]), atol=1e-6)
    summed = straight + mirrored
    summed /= np.linalg.norm(summed, axis=1, keepdims=True)
    np.testing.assert_allclose(found, summed, atol=1e-6)


def test_graphs_are_called_apart():
    assert names_of([Path("a/model.onnx"), Path("b/w600k.onnx")]) == ["a", "w600k"]
    assert names_of([Path("a/x.onnx"), Path("b/x.onnx")]) == ["a/x.onnx", "b/x.onnx"]


def test_sets_that_are_not_there_are_left_out_and_said(data, graphs, tmp_path):
    (tmp_path / "identities").mkdir()
    for name in ("validation.csv", "validation.zip"):
        (tmp_path / "identities" / name).symlink_to(data / "identities" / name)
    said = []
    [measured] = evaluate(graphs[:1], tmp_path, tmp_path / "cache", say=said.append)
    assert set(measured.figures["metrics"]) == {"validation"}
    assert "calibration" not in measured.figures
    assert any("calibration.csv is not there" in line for line in said)
    assert any(line.startswith(f"{tmp_path / 'lfw'} is not there") for line in said)


def test_crops_without_a_name_are_not_taken_for_utkfaces_strangers(data, graphs, tmp_path):
    (tmp_path / "identities").mkdir()
    write_set(drawn_crops(people=12, each=3), tmp_path / "identities", "calibration")
    mine = drawn_crops(people=1, each=4)
    mine.labels_N[:] = -1
    write_set(mine, tmp_path / "identities", "unlabelled")
    [measured] = evaluate(graphs[:1], tmp_path, tmp_path / "cache", **SILENT)
    assert measured.figures["identification"]["galleries"][-1]["distractors"] == 4
    assert "groups" not in measured.figures


def test_people_to_measure_on_have_names_and_pairs(graphs, tmp_path):
    (tmp_path / "identities").mkdir()
    write_set(drawn_crops(people=12, each=1), tmp_path / "identities", "validation")
    with pytest.raises(ValueError, match=r"validation\.csv: verification needs two people, one"):
        evaluate(graphs[:1], tmp_path, tmp_path / "cache", **SILENT)


def test_two_sets_of_pairs_of_one_name_are_refused(graphs, tmp_path):
    crop = png(drawn_crops(people=1, each=1).pixels_NHWC[0])
    write_bin(tmp_path / "a.bin", [crop] * 4, [True, False])
    asked = [f"mine={tmp_path / 'a.bin'}"] * 2
    with pytest.raises(ValueError, match="two sets are called mine"):
        evaluate(graphs[:1], tmp_path, tmp_path / "cache", pairs=asked, **SILENT)


def test_nothing_to_measure_on_is_an_error(graphs, tmp_path):
    with pytest.raises(ValueError, match=r"neither lfw nor identities"):
        evaluate(graphs[:1], tmp_path, tmp_path / "cache", **SILENT)


def test_a_graph_that_is_none_ends_the_command_with_its_name(data, graphs, tmp_path, monkeypatch):
    (tmp_path / "text.onnx").write_text("no graph")
    arguments = [str(graphs[0]), str(tmp_path / "text.onnx"), "--data", str(data)]
    monkeypatch.setattr(
        "sys.argv", ["training", "evaluate", *arguments, "--out", str(tmp_path / "out.json")]
    )
    with pytest.raises(SystemExit, match=r"text\.onnx is no graph"):
        main()
    assert not (tmp_path / "out.json").exists()


def test_figures_hold_nothing_that_json_cannot():
    assert plain({"a": [float("nan"), 0.5], "b": (1, "x")}) == {"a": [None, 0.5], "b": [1, "x"]}


def test_raw_embeddings_of_a_crop_and_its_mirror_image_are_added_before_they_have_unit_length(
    graphs, data, tmp_path
):
    asked = [f"mine={data / 'crops'},{data / 'pairs.txt'}"]
    found = evaluate(
        graphs, tmp_path, tmp_path / "cache", pairs=asked, flip=True, flip_raw=True, **SILENT
    )
    assert set(found[0].figures["verification"]) == {"mine", "mine, flip", "mine, flip raw"}
    [_, network] = open_networks(graphs, tmp_path / "cache", threads=1, raw=True)
    crops = drawn_crops(people=2, each=1).pixels_NHWC
    raw = open_graph(graphs[1], raw=True)
    summed = raw(crops) + raw(crops[:, :, ::-1])
    wanted = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    np.testing.assert_allclose(network.flipped_raw(crops), wanted, atol=1e-5)
    assert np.abs(network.flipped(crops) - wanted).max() > 1e-5  # unit ones weigh both alike
    page = table([measured.figures for measured in found])
    assert "the way of InsightFace and CurricularFace" in page
    with pytest.raises(ValueError, match="unit embeddings alone"):
        replace(network, embed_raw=None).flipped_raw(crops)


def test_seven_pairs_give_no_rate_that_they_cannot_show(tmp_path, graphs):
    crops = drawn_crops(people=7, each=2).pixels_NHWC
    write_bin(tmp_path / "seven.bin", [png(crop) for crop in crops], [True] * 4 + [False] * 3)
    found = evaluate(
        graphs[:1], tmp_path, tmp_path / "cache", pairs=[f"s={tmp_path / 'seven.bin'}"], **SILENT
    )
    figures = found[0].figures["verification"]["s"]
    for power in (1, 2, 3, 4):
        ends = [figures[f"tar_at_far_1e{power}{end}"] for end in ("", "_low", "_high")]
        assert ends == [None] * 3
    page = table([found[0].figures])
    assert "| s TAR @ FAR 1e-4 | - |" in page
    assert "± 0.00" not in page
    assert "s: TAR at FAR 0.1, 0.01, 0.001, 0.0001: 3 non-mated pairs cannot show it" in page


def test_pairs_of_one_kind_are_refused_before_anything_is_measured(tmp_path, graphs):
    crops = drawn_crops(people=2, each=6).pixels_NHWC
    write_bin(tmp_path / "same.bin", [png(crop) for crop in crops], [True] * 6)
    with pytest.raises(ValueError, match=r"s: .*here are 6 mated and 0 non-mated pairs"):
        evaluate(
            graphs[:1], tmp_path, tmp_path / "cache", pairs=[f"s={tmp_path / 'same.bin'}"], **SILENT
        )
    assert not (tmp_path / "cache").exists()
