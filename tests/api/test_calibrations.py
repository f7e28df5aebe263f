"""Calibrations of the user's own: bound to galleries, in force, shown, and gone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api import schemas
from service.app import create_app
from service.calibration.kept import Calibrations
from service.errors import SettingsError
from service.settings import Settings
from tests.api.test_images import exact
from tests.api.wire import problem, send, slug
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo
from tests.standin import NAME, SPACE, calibration, population, write_recognition

FACTS = {"model": "stand-in", "graph_sha256": "0" * 64, "measured": "2026-11-22T08:00:00+00:00"}


def strict(**changes: Any) -> dict[str, Any]:
    """A calibration by which only a cosine of 1 is anybody: below it all strangers match."""
    block = calibration(people=12, crops=40, smallest_fmr=0.5)
    rates = [1.0] * 20 + [0.5]
    curve = {**block["curve"], "fmr": rates, "fmr_low": rates}
    return {**FACTS, "space": SPACE, **block, "curve": curve, **changes}


@pytest.fixture
def kept(settings: Settings) -> Calibrations:
    return Calibrations(settings.calibrations)


def identified(client: TestClient, **fields: Any) -> Any:
    """The answer about the drawn person 1."""
    return send(client, "/identify", "multipart", [drawn_photo(1, take=5)], fields)


def test_a_gallery_decides_by_the_calibration_it_is_bound_to_at_once(
    client: TestClient, kept: Calibrations
) -> None:
    send(client, "/enroll", "raw", [drawn_photo(1)], {"person_id": "ada"})
    body = exact(schemas.IdentifyAnswer, identified(client))
    assert body["images"][0]["faces"][0]["decision"] == "match"
    assert (body["threshold"]["calibration"], body["threshold"]["extrapolated"]) == (None, False)

    kept.keep("staff", strict())  # while the service runs
    bound = client.patch("/galleries/default", json={"calibration": "staff"})
    assert exact(schemas.Gallery, bound)["calibration"] == "staff"
    assert client.get("/galleries/default").json()["calibration"] == "staff"
    body = exact(schemas.IdentifyAnswer, identified(client))
    [face] = body["images"][0]["faces"]
    assert (face["decision"], face["candidates"][0]["person_id"]) == ("no_match", "ada")
    assert body["threshold"]["calibration"] == "staff"
    assert (body["threshold"]["similarity"], body["threshold"]["target"]) == (1.0, 0.5)

    kept.keep("staff", strict(**calibration(people=13)))  # measured anew
    again = identified(client).json()
    assert again["images"][0]["faces"][0]["decision"] == "match"
    freed = client.patch("/galleries/default", json={"calibration": None})
    assert freed.json()["calibration"] is None
    assert identified(client).json()["threshold"]["calibration"] is None


def test_a_gallery_may_be_made_bound_and_keeps_it_when_its_metadata_change(
    client: TestClient, kept: Calibrations
) -> None:
    kept.keep("staff", strict())
    made = client.post("/galleries", json={"name": "lab", "calibration": "staff"})
    assert (made.status_code, made.json()["calibration"]) == (201, "staff")
    changed = client.patch("/galleries/lab", json={"metadata": {"floor": 3}}).json()
    assert (changed["calibration"], changed["metadata"]) == ("staff", {"floor": 3})
    both = client.patch("/galleries/lab", json={"metadata": {}, "calibration": None}).json()
    assert (both["calibration"], both["metadata"]) == (None, {})


def test_a_target_that_was_not_measured_is_answered_as_extrapolated(
    client: TestClient, kept: Calibrations
) -> None:
    block = calibration(smallest_fmr=1e-2)
    beyond = slice(15, None)  # from 0.5 on, where the stand-in's FMR is 10^(-2.5)
    names = ("similarity", "fmr", "fmr_low", "fmr_high")
    tail = {name: block["curve"][name][beyond] for name in names}
    kept.keep("staff", {**FACTS, "space": SPACE, **block, "tail": tail})
    client.patch("/galleries/default", json={"calibration": "staff"})
    threshold = identified(client, target_fpir=1e-4).json()["threshold"]
    assert (threshold["extrapolated"], threshold["target"]) == (True, 1e-4)
    assert threshold["similarity"] == pytest.approx(0.8, abs=1e-6)
    measured = identified(client, target_fpir=0.1).json()["threshold"]
    assert (measured["extrapolated"], measured["calibration"]) == (False, "staff")


def test_what_is_not_there_or_does_not_fit_binds_nothing(
    client: TestClient, kept: Calibrations
) -> None:
    kept.keep("staff", strict())
    kept.keep("other-space", strict(space="other/1"))
    kept.keep("broken", strict()).write_text("{")
    for value, why in (
        ("none", "calibration-unknown"),
        ("other-space", "calibration-unfit"),
        ("broken", "calibration-unfit"),
        ("../gallery", "field-invalid"),
        ("", "field-invalid"),
        (7, "field-invalid"),
    ):
        made = client.post("/galleries", json={"name": "lab", "calibration": value})
        bound = client.patch(
            "/galleries/default", json={"calibration": value, "metadata": {"a": 1}}
        )
        assert (slug(made), slug(bound)) == (why, why)
    refused = problem(client.patch("/galleries/default", json={"calibration": "none"}))
    assert (refused["status"], refused["known"]) == (404, ["broken", "other-space", "staff"])
    assert (
        "other/1"
        in problem(client.patch("/galleries/default", json={"calibration": "other-space"}))[
            "reason"
        ]
    )
    [default] = client.get("/galleries").json()["items"]
    assert (default["calibration"], default["metadata"]) == (None, {})
    assert slug(client.patch("/galleries/none", json={"calibration": "staff"})) == "gallery-unknown"


def test_a_bound_calibration_that_is_lost_refuses_and_nothing_steps_in(
    client: TestClient, kept: Calibrations
) -> None:
    send(client, "/enroll", "raw", [drawn_photo(1)], {"person_id": "ada"})
    path = kept.keep("staff", strict())
    client.patch("/galleries/default", json={"calibration": "staff"})
    path.write_text("{")
    damaged = problem(identified(client))
    path.unlink()
    gone = problem(identified(client))
    kept.keep("staff", strict(space="other/1"))
    moved = problem(identified(client))
    for refused, why in ((damaged, "damaged"), (gone, "there is no"), (moved, "other/1")):
        assert (refused["type"], refused["status"]) == ("/problems/calibration-lost", 409)
        assert (refused["gallery"], refused["value"]) == ("default", "staff")
        assert why in refused["reason"]
    assert send(client, "/enroll", "raw", [drawn_photo(2)]).status_code == 201
    client.patch("/galleries/default", json={"calibration": None})
    assert identified(client).status_code == 200


def test_a_calibration_outlives_the_process(settings: Settings, kept: Calibrations) -> None:
    kept.keep("staff", strict())
    for change in ({"calibration": "staff"}, {"metadata": {"seen": True}}):
        with ready_client(create_app(settings, open_engine=open_drawn)) as client:
            assert client.patch("/galleries/default", json=change).status_code == 200
            assert identified(client).json()["threshold"]["calibration"] == "staff"


def test_verify_takes_one_by_its_name(client: TestClient, kept: Calibrations) -> None:
    kept.keep("staff", strict())
    images = {"image_a": drawn_photo(1), "image_b": drawn_photo(1, take=2)}
    plain = exact(schemas.VerifyAnswer, send(client, "/verify", "multipart", images))
    own = exact(
        schemas.VerifyAnswer,
        send(client, "/verify", "multipart", images, {"calibration": "staff"}),
    )
    assert (plain["decision"], plain["threshold"]["calibration"]) == ("match", None)
    assert (own["decision"], own["threshold"]["calibration"]) == ("no_match", "staff")
    assert own["similarity"] == plain["similarity"]
    unknown = send(client, "/verify", "multipart", images, {"calibration": "none"})
    assert (unknown.status_code, slug(unknown)) == (404, "calibration-unknown")


def test_what_is_in_force_is_shown_with_the_galleries_bound(
    client: TestClient, kept: Calibrations
) -> None:
    kept.keep("staff", strict(left_out=3))
    kept.keep("unused", strict())
    kept.keep("other-space", strict(space="other/1"))
    path = kept.keep("lost", strict())
    for name, own in (("a", "staff"), ("b", "staff"), ("c", "lost"), ("d", None)):
        client.post("/galleries", json={"name": name, "calibration": own})
    path.unlink()
    (kept.folder / "broken.json").write_text("{")
    body = exact(schemas.Calibration, client.get("/models/stand-in/calibration"))
    assert (body["people"], body["smallest_fmr"]) == (100, 1e-4)
    targets = {row["target_fmr"]: row for row in body["thresholds"]}
    assert targets[1e-2]["similarity"] == pytest.approx(0.4)
    assert [row["extrapolated"] for row in body["thresholds"]] == [False] * 4 + [True] * 2
    own = {entry["name"]: entry for entry in body["calibrations"]}
    assert list(own) == ["broken", "lost", "staff", "unused"]
    assert (own["staff"]["galleries"], own["staff"]["problem"]) == (["a", "b"], None)
    assert (own["staff"]["people"], own["staff"]["left_out"]) == (12, 3)
    assert own["staff"]["measured"] == FACTS["measured"]
    assert len(own["staff"]["thresholds"]) == 6
    assert "curve" not in own["staff"]
    assert (own["lost"]["galleries"], own["unused"]["galleries"]) == (["c"], [])
    assert own["lost"]["problem"]["type"] == "/problems/calibration-unknown"
    assert own["broken"]["problem"]["type"] == "/problems/calibration-unfit"


def test_a_gallery_bound_across_spaces_shows_why_nobody_is_identified_in_it(
    client: TestClient, kept: Calibrations
) -> None:
    kept.keep("staff", strict())
    client.patch("/galleries/default", json={"calibration": "staff"})
    kept.keep("staff", strict(space="other/1"))
    [entry] = client.get("/models/stand-in/calibration").json()["calibrations"]
    assert (entry["galleries"], entry["problem"]["status"]) == (["default"], 409)


def test_every_worker_reads_the_same_calibrations(
    app: FastAPI, settings: Settings, kept: Calibrations, tmp_path: Path
) -> None:
    neighbour = create_app(settings, open_engine=open_drawn)
    with ready_client(app) as client, ready_client(neighbour) as other:
        kept.keep("staff", strict())
        client.patch("/galleries/default", json={"calibration": "staff"})
        assert identified(other).json()["threshold"]["calibration"] == "staff"


@pytest.fixture
def populated(settings: Settings, models: Path, tmp_path: Path) -> Settings:
    """Settings of a model whose calibration has populations."""
    folder = shutil.copytree(models, tmp_path / "populated-models")
    shutil.rmtree(folder / NAME)
    populations = {"alike": population(10), "unlike": population(0.5)}
    write_recognition(folder / NAME, calibration=calibration(populations=populations))
    return settings.model_copy(update={"models": folder})


def verified(client: TestClient, **fields: Any) -> Any:
    images = {"image_a": drawn_photo(1), "image_b": drawn_photo(1, take=2)}
    return send(client, "/verify", "multipart", images, {"target_fmr": 0.01, **fields})


def test_a_call_a_gallery_or_the_setting_say_whose_false_match_rate_is_meant(
    populated: Settings,
) -> None:
    with ready_client(create_app(populated, open_engine=open_drawn)) as client:
        body = exact(schemas.VerifyAnswer, verified(client))
        assert (body["threshold"]["population"], body["threshold"]["similarity"]) == (
            "calibration",
            pytest.approx(0.4),
        )
        body = exact(schemas.VerifyAnswer, verified(client, population="worst"))
        threshold = body["threshold"]
        assert (threshold["population"], threshold["similarity"]) == ("alike", pytest.approx(0.6))
        assert threshold["fnmr"] == pytest.approx(0.01, rel=1e-3)
        assert threshold["fnmr_interval"] == pytest.approx([0.005, 0.02], rel=1e-3)

        assert identified(client).json()["threshold"]["population"] == "calibration"
        assert identified(client, population="unlike").json()["threshold"]["population"] == "unlike"
        bound = exact(
            schemas.Gallery, client.patch("/galleries/default", json={"population": "worst"})
        )
        assert bound["population"] == "worst"
        asked = exact(schemas.IdentifyAnswer, identified(client))
        assert asked["threshold"]["population"] == "alike"
        kind = identified(client, population="calibration").json()["threshold"]["population"]
        assert kind == "calibration"
        made = client.post("/galleries", json={"name": "lab", "population": "unlike"}).json()
        assert made["population"] == "unlike"
        freed = client.patch("/galleries/default", json={"population": None}).json()
        assert freed["population"] is None
    setting = populated.model_copy(update={"population": "worst"})
    with ready_client(create_app(setting, open_engine=open_drawn)) as client:
        assert verified(client).json()["threshold"]["population"] == "alike"
        assert identified(client).json()["threshold"]["population"] == "alike"
        analyzed = send(client, "/analyze", "multipart", [drawn_photo(1)], {"features": "identity"})
        assert analyzed.json()["threshold"]["population"] == "alike"


def test_a_population_that_the_calibration_lacks_is_refused_with_what_to_do(
    client: TestClient, kept: Calibrations
) -> None:
    kept.keep("staff", strict())
    for answer, own in (
        (verified(client, population="worst"), None),
        (identified(client, population="worst"), None),
        (verified(client, population="worst", calibration="staff"), "staff"),
        (client.patch("/galleries/default", json={"population": "worst"}), None),
        (client.post("/galleries", json={"name": "lab", "population": "worst"}), None),
    ):
        refused = problem(answer)
        assert (refused["type"], refused["status"]) == ("/problems/population-unknown", 409)
        assert (refused["value"], refused["calibration"]) == ("worst", own)
        assert refused["known"] == ["calibration"]
        assert "--strangers" in refused["detail"]
    assert slug(verified(client, population="a b")) == "field-invalid"
    assert client.get("/galleries/default").json()["population"] is None
    assert slug(client.get("/galleries/lab")) == "gallery-unknown"


def test_a_gallery_of_a_population_is_not_bound_to_a_calibration_that_lacks_it(
    populated: Settings,
) -> None:
    kept = Calibrations(populated.calibrations)
    kept.keep("staff", strict())
    with ready_client(create_app(populated, open_engine=open_drawn)) as client:
        client.patch("/galleries/default", json={"population": "worst"})
        refused = client.patch("/galleries/default", json={"calibration": "staff"})
        assert slug(refused) == "population-unknown"
        both = {"calibration": "staff", "population": None}
        assert client.patch("/galleries/default", json=both).status_code == 200


def test_the_setting_is_refused_at_the_start_where_the_model_has_no_populations(
    settings: Settings,
) -> None:
    with pytest.raises(SettingsError, match=r"MIEN_POPULATION.*no population 'worst'"):
        open_drawn(settings.model_copy(update={"population": "worst"}))


def test_populations_are_shown_side_by_side(populated: Settings) -> None:
    kept = Calibrations(populated.calibrations)
    kept.keep("staff", strict(populations={"strangers": population(3)}))
    with ready_client(create_app(populated, open_engine=open_drawn)) as client:
        body = exact(schemas.Calibration, client.get("/models/stand-in/calibration"))
    own, alike, unlike = body["populations"]
    assert [own["name"], alike["name"], unlike["name"]] == ["calibration", "alike", "unlike"]
    assert (alike["crops"], alike["data"], "curve" in alike) == (50, "drawn", False)
    for shown, similarity, fmr in ((own, 0.4, 0.01), (alike, 0.6, 0.1), (unlike, 0.34, 0.005)):
        [row] = [row for row in shown["thresholds"] if row["target_fmr"] == 0.01]
        assert row["similarity"] == pytest.approx(similarity, abs=5e-3)
        [at] = [r for r in shown["at_calibration_thresholds"] if r["target_fmr"] == 0.01]
        assert (at["similarity"], at["fmr"]) == pytest.approx((0.4, fmr), rel=1e-3)
    [staff] = body["calibrations"]
    assert [one["name"] for one in staff["populations"]] == ["calibration", "strangers"]
