"""A run's page: what the log holds, several rounds one after the other, as curves and tables."""

import json
from dataclasses import asdict

import pytest

from tests.shared import REPOSITORY
from tests.training.runs import small_run
from training.loop import train
from training.recipes.attributes import mzts_hybrid
from training.recipes.closed_set import hsanet_x
from training.recipes.expression import patt_lite
from training.recipes.recognition import tiny
from training.report import cross_entropy_title, read_log, report

SHIPPED = REPOSITORY / "training" / "weights" / "ecacface-mobile.log.jsonl"
PNG = b"\x89PNG\r\n"


def write_log(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_runs_page_shows_its_curves_recipe_and_machine(tmp_path):
    train(small_run(facts={"step": "plain"}), tmp_path / "run", log_every=1)
    report(tmp_path / "run", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for words in ("<h1>small</h1>", "data:image/png;base64,", "last score", "learning_rate", "cpu"):
        assert words in page
    assert "src=http" not in page


def test_markdown_has_its_picture_beside(tmp_path):
    train(small_run(), tmp_path / "run", log_every=1)
    report(tmp_path / "run", tmp_path / "pages" / "run.md")
    assert "![Curves of the run](run.png)" in (tmp_path / "pages" / "run.md").read_text()
    assert (tmp_path / "pages" / "run.png").read_bytes().startswith(PNG)
    report(tmp_path / "run", tmp_path / "alone.png")
    assert (tmp_path / "alone.png").read_bytes().startswith(PNG)


def test_rounds_one_after_the_other_are_told_apart_and_a_repeated_step_counts_once(tmp_path):
    opening = {"recipe": {"name": "a", "batch": 10}}
    log = write_log(
        tmp_path / "log.jsonl",
        [
            {"step": 50, "loss": 3.0},  # of the loop's earlier form: no row opens the round
            {"step": 100, "loss": 9.0},
            {"step": 100, "loss": 2.0},
            {"step": 100, "score": 0.5},
            {"step": 50, "loss": 1.0},
            {"step": 0, "round": opening},
            {"step": 20, "loss": 0.5},
            {"step": 20, "resumed": opening},
            {"step": 40, "loss": 0.4},
        ],
    )
    rounds = read_log(log)
    assert [[row["step"] for row in r.rows] for r in rounds] == [[50, 100], [50], [20, 40]]
    assert rounds[0].rows[1] == {"step": 100, "loss": 2.0, "score": 0.5}
    assert (rounds[2].batch, rounds[2].steps) == (10, 40)


def test_the_shipped_runs_log_is_read_with_the_recipes_of_the_network_beside_it():
    rounds = read_log(SHIPPED)
    assert len(rounds) >= 2
    assert all(r.batch for r in rounds)
    assert all(r.rows[-1]["equal_error_rate"] < 0.5 for r in rounds)


def test_what_is_no_log_is_refused_by_line_and_another_kind_of_page_too(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 1}\n{"loss"')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2 is no row"):
        read_log(log)
    log.write_bytes(b"\xa0\xff weights, say\n")
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1 is no row"):
        read_log(log)
    log.write_text("")
    with pytest.raises(ValueError, match="holds no row"):
        read_log(log)
    write_log(log, [{"step": 1, "loss": 1.0}])
    with pytest.raises(ValueError, match=r"page\.pdf: a page is"):
        report(log, tmp_path / "page.pdf")


@pytest.mark.parametrize(
    ("recipe", "title"),
    [
        (tiny(), "cross-entropy over people"),
        (mzts_hybrid(), "validation: cross-entropy over attributes"),
        (patt_lite(), "validation: cross-entropy over expressions"),
        (hsanet_x(), "validation: cross-entropy over people"),
    ],
    ids=["recognition", "attributes", "expression", "closed set"],
)
def test_a_cross_entropy_is_titled_by_what_the_run_tells_apart(recipe, title, tmp_path):
    opening = {"recipe": asdict(recipe)}
    rows = [{"step": 0, "round": opening}, {"step": 9, "loss": 1.0, "cross_entropy": 2.0}]
    rounds = read_log(write_log(tmp_path / "log.jsonl", rows))
    assert cross_entropy_title(rounds) == title
    assert cross_entropy_title([]) == "cross-entropy"


def test_the_shipped_logs_are_titled_by_their_tasks():
    titles = {
        name: cross_entropy_title(read_log(SHIPPED.with_name(f"{name}.log.jsonl")))
        for name in ("ecacface-mobile", "mzts", "patt-lite")
    }
    assert [title.rpartition(" ")[2] for title in titles.values()] == [
        "people",
        "attributes",
        "expressions",
    ]
