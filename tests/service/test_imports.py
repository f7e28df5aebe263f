"""service/imports and `mien import`: what is taken of other programs' files, and what is not."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from service.api import schemas
from service.errors import ImportRefused
from service.gallery import open_gallery
from service.gallery.contract import Galleries, PersonRecord
from service.guard.audit import Audit, read_entries
from service.imports.compreface import read_dump, services_of
from service.imports.embeddings import Person, Read, read_embeddings
from service.imports.people import enroll_person
from service.settings import Settings
from tests.api.test_images import exact
from tests.drawn import drawn_photo
from tests.service.conftest import Mien
from tests.standin import SPACE, write_round

KEY = "aaaa0000-0000-0000-0000-000000000001"


def units(count: int, seed: int = 0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((count, 512)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def csv_text(header: str, *rows: str) -> str:
    return "\n".join((header, *rows)) + "\n"


def read(path: Path, said: str | None = SPACE, *, normalize: bool = False) -> Read:
    return read_embeddings(path, space=SPACE, said=said, normalize=normalize)


def persons_in(settings: Settings) -> dict[str, tuple[str | None, int]]:
    """The names and numbers of faces."""
    store = open_gallery(settings.data)
    try:
        page = store.list_persons("default", limit=1000)
        return {person.id: (person.name, person.faces) for person in page.items}
    finally:
        store.close()


# Embeddings.


def test_rows_of_both_forms_are_people_with_all_their_embeddings(tmp_path: Path) -> None:
    vectors = units(4)
    ids = np.array(["ada", "ben", "ada"])
    npz(tmp_path / "a.npz", embeddings=vectors[:3], person_ids=ids, names=np.array(["Ada", "", ""]))
    last = json.dumps(json.dumps(vectors[3].tolist())).replace("\\", "")
    text = csv_text("person_id,embedding", f"ben,{last}")
    (tmp_path / "b.csv").write_text(text, encoding="utf-8")
    (tmp_path / "readme.txt").write_text("not read", encoding="utf-8")
    found = read(tmp_path)
    assert found.refused == []
    ada, ben = found.people
    assert (ada.id, ada.name, ben.id, ben.name) == ("ada", "Ada", "ben", None)
    assert np.array_equal(ada.embeddings_ND, vectors[[0, 2]])
    assert np.array_equal(ben.embeddings_ND, vectors[[1, 3]])


def test_a_csv_may_have_a_column_a_number(tmp_path: Path) -> None:
    [vector] = units(1)
    header = ",".join(("person_id", "name", *(f"e{n}" for n in range(512))))
    row = ",".join(("ada", "Ada", *(repr(float(value)) for value in vector)))
    path = tmp_path / "people.csv"
    path.write_text("\ufeff" + csv_text(header, row), encoding="utf-8")
    [ada] = read(path).people
    assert np.array_equal(ada.embeddings_ND[0], vector)


def changed(change: Callable[[NDArray[np.float32]], Any]) -> NDArray[np.float32]:
    vectors = units(3)
    change(vectors)
    return vectors


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (changed(lambda v: v.__setitem__((1, 7), np.nan)), "it holds a number that is not finite"),
        (changed(lambda v: v.__setitem__((1, 7), np.inf)), "it holds a number that is not finite"),
        (changed(lambda v: v.__setitem__(1, 3 * v[1])), "its length is 3, not 1; --normalize"),
        (changed(lambda v: v.__setitem__(1, 0)), "its length is 0, not 1"),
    ],
)
def test_a_row_of_no_use_is_named_and_keeps_its_person_out_whole(
    tmp_path: Path, vectors: NDArray[np.float32], reason: str
) -> None:
    path = npz(tmp_path / "p.npz", embeddings=vectors, person_ids=np.array(["ben", "ada", "ada"]))
    found = read(path)
    assert [person.id for person in found.people] == ["ben"]
    first, second = found.refused
    assert (first.where, first.person_id) == ("p.npz, row 1", "ada")
    assert first.reason.startswith(reason)
    assert (second.where, second.reason) == (
        "p.npz, row 2",
        "another row of the same person was refused",
    )


def test_other_lengths_are_scaled_only_when_asked_and_zero_never(tmp_path: Path) -> None:
    vectors = units(2) * np.array([[7], [0]], np.float32)
    path = npz(tmp_path / "p.npz", embeddings=vectors, person_ids=np.array(["ada", "ben"]))
    found = read(path, normalize=True)
    [ada] = found.people
    assert np.linalg.norm(ada.embeddings_ND[0]) == pytest.approx(1)
    assert [(row.person_id, row.reason) for row in found.refused] == [
        ("ben", "its length is 0, not 1")
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('ada,Ada,"[1, 2]"', "the shape (2,), not (512,)"),
        ("ada,Ada,none", "its embedding is none of numbers"),
        ('ada,Ada,"[[1]]"', "the shape (1, 1)"),
        ('ada,Ada,"[""a""]"', "its embedding is none of numbers"),
        (f'ada,Ada,"[1{"0" * 400}]"', "its embedding is none of numbers: int too large"),
        ("ada,Ada", "not as many fields as the header"),
        ("ada,Ada,[1],7", "not as many fields as the header"),
        (" ada,Ada,[1]", "person_id is ' ada'"),
        (",Ada,[1]", "person_id is ''"),
    ],
)
def test_a_line_of_a_csv_that_is_no_row_is_named(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(csv_text("person_id,name,embedding", row), encoding="utf-8")
    [refusal] = read(path).refused
    assert refusal.where == "p.csv, line 2"
    assert reason in refusal.reason


def test_a_person_of_two_names_is_refused(tmp_path: Path) -> None:
    path = npz(
        tmp_path / "p.npz",
        embeddings=units(2),
        person_ids=np.array(["ada", "ada"]),
        names=np.array(["Ada", "Ida"]),
    )
    assert {row.reason for row in read(path).refused} == {
        "they have several names: 'Ida', 'Ada'",
    }


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"embeddings": None}, "lacks the array 'embeddings'"),
        ({"embeddings": units(2)[:, :128]}, r"float32 \(2, 128\), not floats \(N, 512\)"),
        ({"embeddings": units(3)}, r"for the N = 2 person_ids"),
        ({"embeddings": units(2).astype(np.int8)}, r"int8 \(2, 512\)"),
        ({"names": np.array(["a"])}, "names"),
        ({"labels": np.array([1])}, "its array 'labels' is none of"),
        ({"person_ids": np.array(["a", None])}, "cannot be read"),
        ({"person_ids": np.array([b"a", b"b"])}, "its person_ids are |S1, not text"),
        ({"names": np.array([1.0, np.nan])}, "its names are float64, not text"),
    ],
)
def test_a_file_of_another_form_is_refused_as_a_whole(
    tmp_path: Path, arrays: dict[str, Any], reason: str
) -> None:
    fit = {"embeddings": units(2), "person_ids": np.array(["ada", "ben"])}
    with pytest.raises(ImportRefused, match=reason):
        read(npz(tmp_path / "p.npz", **{**fit, **arrays}))


def written_by(write: Callable[..., None], *arrays: NDArray[Any]) -> bytes:
    write(file := io.BytesIO(), *arrays)
    return file.getvalue()


def zipped(content: bytes) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("embeddings.npy", content)
    return file.getvalue()


def promising(shape: tuple[int, ...]) -> bytes:
    """The head of an array that is not there."""
    head = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file := io.BytesIO(), head)
    return file.getvalue()


def damaged(content: bytes) -> bytes:
    return content[:3000] + b"\xff" * 100 + content[3100:]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.csv", b"name,embedding\n", "lacks person_id"),
        ("p.csv", b"person_id,a,b\n", "2 columns besides"),
        ("p.csv", b"person_id,embedding\n\xff\n", "cannot be read"),
        ("p.npz", b"no archive", "it is no archive of arrays, or was cut off"),
        ("p.npz", written_by(np.save, np.zeros(3)), "it is no archive of arrays"),
        ("p.npz", zipped(b"no array"), "its embeddings is no array"),
        ("p.npz", zipped(promising((10**9, 10**3))), "Unable to allocate"),
        ("p.npz", damaged(written_by(np.savez_compressed, units(20))), "cannot be read"),
        ("p.txt", b"", "is named neither .npz nor .csv"),
    ],
)
def test_what_is_no_file_of_embeddings_is_refused(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportRefused, match=reason):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("told", "said", "reason"),
    [
        ("other/1", None, f"of the space 'other/1' and '{SPACE}' is served"),
        (None, "other/1", f"of the space 'other/1' and '{SPACE}' is served"),
        (None, None, f"does not say of which space .* '{SPACE}' is served"),
        (SPACE, "other/1", f"it says the space '{SPACE}', and --space 'other/1'"),
    ],
)
def test_embeddings_of_another_space_are_refused_with_both_names(
    tmp_path: Path, told: str | None, said: str | None, reason: str
) -> None:
    space = None if told is None else np.array(told)
    path = npz(tmp_path / "p.npz", embeddings=units(1), person_ids=np.array(["ada"]), space=space)
    with pytest.raises(ImportRefused, match=reason):
        read(path, said)
    [vector] = units(1)
    row = f'ada,{told or ""},"{vector.tolist()}"'
    (tmp_path / "p.csv").write_text(csv_text("person_id,space,embedding", row), encoding="utf-8")
    with pytest.raises(ImportRefused, match=reason):
        read(tmp_path / "p.csv", said)


def test_a_file_that_says_the_space_needs_no_option(tmp_path: Path) -> None:
    path = npz(
        tmp_path / "p.npz", embeddings=units(1), person_ids=np.array(["ada"]), space=np.array(SPACE)
    )
    assert len(read(path, None).people) == 1


def test_imported_people_are_there_once_and_answered(
    mien: Mien, settings: Settings, tmp_path: Path
) -> None:
    vectors = units(3)
    people = tmp_path / "p.npz"
    npz(people, embeddings=vectors, person_ids=np.array(["ada", "ada", "ben"]))
    first = mien("import", "embeddings", people, "--space", SPACE)
    assert first.exit_code == 0, first.output
    assert "2 persons with 3 faces enrolled, 0 there before" in first.stdout
    Audit(settings.data / "audit.jsonl").record("me", "begin")
    again = json.loads(mien("import", "embeddings", people, "--space", SPACE, "--json").stdout)
    assert [entry["before"] for entry in again["enrolled"]] == [True, True]
    npz(people, embeddings=vectors * [[2], [2], [1]], person_ids=np.array(["ada", "ada", "eve"]))
    more = mien("import", "embeddings", people, "--space", SPACE)
    assert more.exit_code == 1
    [_, noted] = read_entries(settings.data / "audit.jsonl")
    assert noted.what == {"kind": "embeddings", "gallery": "default", "person_ids": ["eve"]}
    assert "its length is 2, not 1" in more.stdout.replace("\n", "")
    assert persons_in(settings) == {"ada": (None, 2), "ben": (None, 1), "eve": (None, 1)}

    store = open_gallery(settings.data)
    [[best]] = store.search("default", space=SPACE, embeddings_ND=vectors[2:], top_k=1)
    store.close()
    assert (best.person_id, best.similarity) == ("ben", pytest.approx(1))


def test_an_imported_face_is_answered_without_what_nobody_saw_of_it(
    client: TestClient, settings: Settings
) -> None:
    store = open_gallery(settings.data)
    enroll_person(store, "default", Person("ada", "Ada", units(1)), space=SPACE)
    store.close()
    faces = client.get("/galleries/default/persons/ada/faces")
    [face] = exact(schemas.Page[schemas.PersonFace], faces)["items"]
    assert (face["box"], face["landmarks"], face["confidence"], face["quality"]) == (None,) * 4
    person = client.get("/galleries/default/persons/ada").json()
    assert len(person["metadata"]["imported"]) == 1


def test_an_import_that_was_broken_off_goes_on_where_it_was(
    mien: Mien, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.cli import imports

    path = npz(tmp_path / "p.npz", embeddings=units(3), person_ids=np.array(["ada", "ben", "cleo"]))
    enroll, done = imports.enroll_person, []

    def broken(*given: Any, **named: Any) -> bool:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given)
        return enroll(*given, **named)

    monkeypatch.setattr(imports, "enroll_person", broken)
    open_gallery(settings.data).close()  # without one, an audit log tells of a gallery that is lost
    Audit(settings.data / "audit.jsonl").record("me", "begin")
    mien("import", "embeddings", path, "--space", SPACE)
    assert len(persons_in(settings)) == 2
    [_, noted] = read_entries(settings.data / "audit.jsonl")
    assert noted.what["person_ids"] == ["ada", "ben"]
    monkeypatch.setattr(imports, "enroll_person", enroll)
    rest = json.loads(mien("import", "embeddings", path, "--space", SPACE, "--json").stdout)
    assert [entry["before"] for entry in rest["enrolled"]] == [True, True, False]
    assert len(persons_in(settings)) == 3


def test_of_two_imports_at_once_the_later_is_refused_and_nobody_is_enrolled_twice(
    mien: Mien, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.cli import imports

    path = npz(tmp_path / "p.npz", embeddings=units(2), person_ids=np.array(["ada", "ben"]))
    command = ("import", "embeddings", path, "--space", SPACE)
    look, later = imports.enroll_person, []

    def enroll_while_another_comes(store: Galleries, *given: Any, **named: Any) -> bool:
        monkeypatch.setattr(imports, "enroll_person", look)
        seen = store.get_person

        def seen_before_the_other(gallery: str, person_id: str) -> PersonRecord:
            try:
                return seen(gallery, person_id)
            finally:
                later.append(mien(*command))

        with monkeypatch.context() as patched:
            patched.setattr(store, "get_person", seen_before_the_other)
            return look(store, *given, **named)

    monkeypatch.setattr(imports, "enroll_person", enroll_while_another_comes)
    assert mien(*command).exit_code == 0
    assert persons_in(settings) == {"ada": (None, 1), "ben": (None, 1)}
    [refused] = later
    assert refused.exit_code == 2
    assert "another import" in refused.stderr
    assert mien(*command).exit_code == 0  # once it is over


def test_an_import_of_another_space_is_a_line_on_stderr_and_status_2(
    mien: Mien, tmp_path: Path
) -> None:
    path = npz(tmp_path / "p.npz", embeddings=units(1), person_ids=np.array(["ada"]))
    done = mien("import", "embeddings", path, "--space", "facenet/2018")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "of the space 'facenet/2018' and 'stand-in/1' is served" in done.stderr


# CompreFace.


def dumped(
    subjects: dict[str, list[bytes | None]], *, service: str = KEY, order: str = "eis"
) -> str:
    """A dump in pg_dump's plain form; None is a face whose photograph was not kept. order: of the
    tables embedding, img and subject, which pg_dump has by name or by what refers to what."""
    rows: dict[str, list[str]] = {"s": [], "i": [], "e": []}
    for name, photographs in subjects.items():
        subject = f"s{len(rows['s'])}"
        escaped = name.replace("\\", r"\\").replace("\t", r"\t")
        rows["s"].append(f"{subject}\t{service}\t{escaped}")
        for photograph in photographs:
            number = len(rows["e"])
            image = r"\N" if photograph is None else f"i{number}"
            rows["e"].append(f"e{number}\t{subject}\t{{0.1,0.2}}\tfacenet.Calculator\t{image}")
            if photograph is not None:
                rows["i"].append(rf"i{number}" + "\t" + r"\\x" + photograph.hex())
    heads = {
        "s": "COPY public.subject (id, api_key, subject_name) FROM stdin;",
        "i": "COPY public.img (id, content) FROM stdin;",
        "e": "COPY public.embedding (id, subject_id, embedding, calculator, img_id) FROM stdin;",
    }
    tables = ["\n".join((heads[table], *rows[table], "\\.", "")) for table in order]
    return "\n".join(("-- PostgreSQL database dump", "SET client_encoding = 'UTF8';", *tables))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


@pytest.mark.parametrize("order", ["eis", "sie"])
def test_a_dump_tells_of_subjects_and_their_photographs(tmp_path: Path, order: str) -> None:
    photographs = {"Zo\u00eb\tB\\": [b"\0\n\t\\x", b"two"], "Ben": [None, b"3"], "Eve": []}
    dump = read_dump(written(tmp_path / "d.sql", dumped(photographs, order=order)))
    found = {
        subject.name: [dump.photograph(image) for image in subject.photographs]
        for subject in dump.subjects
    }
    assert found == {"Zo\u00eb\tB\\": [b"\0\n\t\\x", b"two"], "Ben": [b"3"], "Eve": []}
    assert [subject.lost for subject in dump.subjects] == [0, 1, 0]
    assert (services_of(dump), dump.calculators) == ({KEY: 3}, {"facenet.Calculator"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT 1;\n", "it lacks the rows of subject, img, embedding"),
        ("PGDMP\0", "custom form"),
        (dumped({"Ada": [b"1"]})[:-4], "ends, or is damaged, within the table subject"),
        (dumped({"Ada": [b"1"]}, order="ei"), "it lacks the rows of subject"),
        (dumped({"Ada": [b"1"]}).replace("s0\taaaa", "s1\taaaa"), "lacks the subject s0"),
        (dumped({"Ada": []}).replace("subject_name", "label"), "its table subject is another"),
        (dumped({"Ada": [b"1"]}).replace("i0\t\\", "\udcff\t\\"), "its text is not UTF-8"),
    ],
)
def test_what_is_no_whole_dump_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ImportRefused, match=reason):
        read_dump(written(tmp_path / "d.sql", text))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_dump_in_utf_16_is_refused_with_how_to_write_it_in_utf_8(
    mien: Mien, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "d.sql"
    path.write_bytes(dumped({"Ada": [b"1"]}).replace("\n", "\r\n").encode(encoding))
    done = mien("import", "compreface", path)
    told = " ".join(done.stderr.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "it is UTF-16" in told
    assert "pg_dump --file=dump.sql" in told
    assert "iconv -f UTF-16 -t UTF-8" in told


def test_embeddings_in_utf_16_are_refused_with_how_to_write_them_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("person_id,embedding\n", encoding="utf-16")
    with pytest.raises(ImportRefused, match=r"it is UTF-16: save it as CSV UTF-8"):
        read_embeddings(path, space="s", said="s", normalize=False)


def test_photographs_of_a_dump_are_enrolled_anew_once_and_refusals_are_told(
    mien: Mien, settings: Settings, tmp_path: Path
) -> None:
    subjects = {
        "Ada": [drawn_photo(0), drawn_photo(0, take=1), drawn_photo()],
        "Ben / B": [drawn_photo(1), None],
        "Wall": [drawn_photo()],
        "Nobody": [None],
    }
    path = written(tmp_path / "d.sql", dumped(subjects))
    done = mien("import", "compreface", path, "--json")
    assert done.exit_code == 1, done.output
    outcome = json.loads(done.stdout)
    assert outcome["notes"] == [
        "its embeddings, of facenet.Calculator, are of other spaces: not taken"
    ]
    assert sorted((e["person_id"], e["faces"]) for e in outcome["enrolled"]) == [
        ("Ada", 2),
        ("Ben / B", 1),
    ]
    assert [(e.get("where"), e["person_id"], e["reason"][:14]) for e in outcome["refused"]] == [
        ("img i2", "Ada", "No face: no fa"),
        (None, "Ben / B", "no photograph "),
        ("img i5", "Wall", "No face: no fa"),
        (None, "Nobody", "no photograph "),
    ]
    again = json.loads(mien("import", "compreface", path, "--json").stdout)
    assert [entry["before"] for entry in again["enrolled"]] == [True, True]
    assert persons_in(settings) == {"Ada": ("Ada", 2), "Ben / B": ("Ben / B", 1)}
    table = mien("import", "compreface", path)
    assert "0 persons with 0 faces enrolled, 2 there before" in table.stdout


def test_a_dump_is_not_said_to_be_there_in_a_gallery_of_another_network(
    mien: Mien, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "d.sql", dumped({"Ada": [drawn_photo(0)]}))
    for seed, status in ((7, 0), (8, 2)):
        folder = write_round(tmp_path / f"{seed}", models, seed=seed)
        monkeypatch.setenv("MIEN_MODELS", str(folder))
        done = mien("import", "compreface", path)
        assert done.exit_code == status, done.output
    assert done.stdout == ""
    assert "import into a new gallery" in done.stderr


def test_a_photograph_of_a_dump_that_is_damaged_keeps_its_subject_out_alone(
    mien: Mien, settings: Settings, tmp_path: Path
) -> None:
    text = dumped({"Ada": [b"?"], "Ben": [drawn_photo(1)]}).replace(r"\\x3f", r"\\x3")
    done = json.loads(
        mien("import", "compreface", written(tmp_path / "d.sql", text), "--json").stdout
    )
    assert done["refused"] == [{"person_id": "Ada", "reason": "the img i0 is damaged"}]
    assert persons_in(settings) == {"Ben": ("Ben", 1)}


def test_a_dump_of_several_services_asks_which_one_is_meant(
    mien: Mien, settings: Settings, tmp_path: Path
) -> None:
    other = dumped({"Ben": [drawn_photo(1)]}, service="bbbb").replace("s0", "t0")
    other = other.replace("i0", "j0")
    path = written(tmp_path / "d.sql", dumped({"Ada": [drawn_photo(0)]}) + "\n" + other)
    done = mien("import", "compreface", path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "aaaa0000… with 1 subjects, bbbb… with 1 subjects" in done.stderr
    assert KEY not in done.stderr
    assert mien("import", "compreface", path, "--service", "bbb").exit_code == 0
    assert persons_in(settings) == {"Ben": ("Ben", 1)}
