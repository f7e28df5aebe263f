"""/galleries, persons and faces as resources."""

from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from service.api import schemas
from tests.api.test_images import exact
from tests.api.wire import problem, send, slug
from tests.drawn import drawn_photo


def test_the_default_gallery_is_there_from_the_start(client: TestClient) -> None:
    page = exact(schemas.Page[schemas.Gallery], client.get("/galleries"))
    assert [gallery["name"] for gallery in page["items"]] == ["default"]
    assert page["next"] is None


def test_a_gallery_is_made_read_changed_and_erased(client: TestClient) -> None:
    made = client.post("/galleries", json={"name": "staff", "metadata": {"a": 1}})
    body = exact(schemas.Gallery, made)
    assert made.status_code == 201
    assert (body["name"], body["metadata"], body["persons"], body["faces"]) == (
        "staff",
        {"a": 1},
        0,
        0,
    )
    again = client.post("/galleries", json={"name": "staff"})
    assert (again.status_code, slug(again)) == (409, "gallery-exists")
    changed = client.patch("/galleries/staff", json={"metadata": {"b": 2}})
    assert changed.json() == {**body, "metadata": {"b": 2}}
    assert client.get("/galleries/staff").json() == changed.json()
    gone = client.delete("/galleries/staff")
    assert (gone.status_code, gone.content) == (204, b"")
    assert slug(client.get("/galleries/staff")) == "gallery-unknown"
    assert slug(client.delete("/galleries/staff")) == "gallery-unknown"


def test_deleting_the_default_gallery_empties_it(client: TestClient) -> None:
    send(client, "/enroll", "raw", [drawn_photo(1)])
    assert client.delete("/galleries/default").status_code == 204
    body = client.get("/galleries/default").json()
    assert (body["persons"], body["faces"], body["space"]) == (0, 0, None)


@pytest.mark.parametrize("name", ["", "a b", "-a", "x" * 129, "ä", "a/b", 7, None])
def test_a_gallery_s_name_must_be_fit_for_a_url(client: TestClient, name: Any) -> None:
    answer = client.post("/galleries", json={"name": name})
    assert (slug(answer), problem(answer)["field"]) == ("field-invalid", "name")
    assert problem(answer)["limit"].startswith("1 to 128 of A-Z a-z 0-9")


def test_a_change_that_changes_nothing_is_refused(client: TestClient) -> None:
    """A person's would lengthen their retention, and a null that is kept would seem to be done."""
    client.post("/galleries/default/persons", json={"id": "ada", "metadata": {"a": 1}})
    for path in ("/galleries/default", "/galleries/default/persons/ada"):
        assert slug(client.patch(path, json={})) == "field-missing"
        assert slug(client.patch(path, json={"metadata": None})) == "field-invalid"
    assert slug(client.patch("/galleries/default", json={"requires_consent": None})) == (
        "field-invalid"
    )
    kept = client.get("/galleries/default/persons/ada").json()
    assert (kept["metadata"], kept["updated"]) == ({"a": 1}, kept["created"])


def test_only_json_makes_a_resource_and_only_known_fields(client: TestClient) -> None:
    form = client.post("/galleries", data={"name": "staff"})
    assert problem(form)["accepted"] == ["application/json"]
    assert slug(client.post("/galleries", files={"name": b"staff"})) == "body-unsupported"
    assert slug(client.post("/galleries", json={"name": "a", "nmae": "b"})) == "field-unknown"
    assert slug(client.post("/galleries", json={})) == "field-missing"
    assert slug(client.patch("/galleries/default", json={})) == "field-missing"
    large = client.post("/galleries", json={"name": "a", "metadata": {"a": "x" * 70_000}})
    assert slug(large) == "body-too-large"


def test_pages_follow_each_other_to_the_end(client: TestClient) -> None:
    for number in range(7):
        client.post("/galleries/default/persons", json={"id": f"p{number}"})
    seen, cursor = [], None
    while True:
        params = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = exact(
            schemas.Page[schemas.Person],
            client.get("/galleries/default/persons", params=params),
        )
        seen += [person["id"] for person in page["items"]]
        if (cursor := page["next"]) is None:
            break
        assert len(page["items"]) == 3
    assert seen == [f"p{number}" for number in range(7)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("cursor=zzz", "cursor"),
        ("cursor=", "cursor"),
        ("limit=1&limit=2", "limit"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/galleries", "/galleries/default/persons", "/galleries/default/persons/ada/faces"]
)
def test_a_page_that_cannot_be_is_refused(
    client: TestClient, path: str, query: str, field: str
) -> None:
    client.post("/galleries/default/persons", json={"id": "ada"})
    answer = client.get(f"{path}?{query}")
    assert (slug(answer), problem(answer)["field"]) == ("field-invalid", field)


def test_a_person_is_made_read_changed_and_erased(client: TestClient) -> None:
    path = "/galleries/default/persons"
    made = client.post(path, json={"id": "ada", "name": "Ada", "metadata": {"a": 1}})
    body = exact(schemas.Person, made)
    assert (made.status_code, body["id"], body["faces"]) == (201, "ada", 0)
    again = client.post(path, json={"id": "ada"})
    assert (again.status_code, slug(again)) == (409, "person-exists")
    assert client.patch(f"{path}/ada", json={"name": "A."}).json()["metadata"] == {"a": 1}
    assert client.patch(f"{path}/ada", json={"metadata": {}}).json()["name"] == "A."
    assert client.patch(f"{path}/ada", json={"name": None}).json()["name"] is None
    assert client.delete(f"{path}/ada").status_code == 200
    assert (slug(client.get(f"{path}/ada")), slug(client.delete(f"{path}/ada"))) == (
        "person-unknown",
        "person-unknown",
    )


def test_a_person_s_id_that_cannot_be_is_refused_by_its_name(client: TestClient) -> None:
    for value in ("", "x" * 129, " a", "a\nb", "\x00", 7):
        answer = client.post("/galleries/default/persons", json={"id": value})
        assert (slug(answer), problem(answer)["field"]) == ("field-invalid", "id")


@pytest.mark.parametrize("person", ["Müller/Jörg", "a b", "a?b#c", "%2F", "李", "a+b", "x/faces"])
def test_a_person_of_any_id_can_be_reached_by_its_url(client: TestClient, person: str) -> None:
    send(client, "/enroll", "json", [drawn_photo(1)], {"person_id": person})
    path = f"/galleries/default/persons/{quote(person, safe='')}"
    assert client.get(path).json()["id"] == person
    [face] = client.get(f"{path}/faces").json()["items"]
    assert client.get(f"{path}/faces/{face['id']}").json() == face
    assert client.delete(f"{path}/faces/{face['id']}").status_code == 204
    assert client.delete(path).status_code == 200
    assert slug(client.get(path)) == "person-unknown"


def test_a_face_keeps_what_was_seen_and_is_found_no_more_once_deleted(client: TestClient) -> None:
    enrolled = send(
        client, "/enroll", "multipart", [drawn_photo(1), drawn_photo(2)], {"person_id": "ada"}
    ).json()["enrolled"]
    path = "/galleries/default/persons/ada/faces"
    page = exact(schemas.Page[schemas.PersonFace], client.get(path))
    assert [face["id"] for face in page["items"]] == [taken["face_id"] for taken in enrolled]
    assert page["items"][0]["box"] == enrolled[0]["box"]
    client.delete(f"{path}/{enrolled[0]['face_id']}")
    [face] = send(client, "/identify", "raw", [drawn_photo(1)]).json()["images"][0]["faces"]
    assert face["decision"] == "no_match"
    assert face["candidates"][0]["face_id"] == enrolled[1]["face_id"]
    assert slug(client.get(f"{path}/{enrolled[0]['face_id']}")) == "face-unknown"


def test_who_was_deleted_is_no_candidate_of_the_next_identify(client: TestClient) -> None:
    for person in (1, 2):
        send(client, "/enroll", "raw", [drawn_photo(person)], {"person_id": str(person)})
    client.delete("/galleries/default/persons/1")
    [face] = send(client, "/identify", "raw", [drawn_photo(1)]).json()["images"][0]["faces"]
    assert [candidate["person_id"] for candidate in face["candidates"]] == ["2"]


def test_people_of_one_gallery_are_not_found_in_another(client: TestClient) -> None:
    client.post("/galleries", json={"name": "staff"})
    send(client, "/enroll", "raw", [drawn_photo(1)], {"gallery": "staff"})
    body = send(client, "/identify", "raw", [drawn_photo(1)]).json()
    assert body["images"][0]["faces"][0]["candidates"] == []
    assert slug(client.get("/galleries/nowhere/persons")) == "gallery-unknown"


def test_an_unknown_field_in_any_query_is_refused(client: TestClient) -> None:
    for method, path in (
        ("GET", "/galleries/default"),
        ("DELETE", "/galleries/default"),
        ("GET", "/galleries/default/persons/x"),
        ("DELETE", "/galleries/default/persons/x"),
        ("GET", "/galleries/default/persons/x/faces/y"),
        ("DELETE", "/galleries/default/persons/x/faces/y"),
    ):
        answer = client.request(method, f"{path}?nonsense=1")
        assert slug(answer) == "field-unknown"
        assert problem(answer)["detail"].endswith("known are none")
