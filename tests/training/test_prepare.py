"""A folder of photographs as a set of crops: what is kept, what is not and why, and going on."""

import csv
import fcntl
import io
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from service.imagefile import read_photograph
from service.inference.artefact import load_artefact
from service.settings import SHIPPED_MODELS
from service.vision.align import align_crops
from service.vision.detect import Cascade, detect_faces
from tests.cartoon import BACKGROUND, cartoon_photograph
from tests.shared import REPOSITORY, SHARED, needs_shared
from training.__main__ import main
from training.data import prepare as preparing
from training.data.prepare import as_jpeg, prepare
from training.data.recordio import read_rec
from training.data.records import Records

PHOTOS = SHARED / "golden" / "photos"


def image(pixels_rgb, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels_rgb).save(file, kind)
    return file.getvalue()


def portrait(side: int = 120, **size: int) -> bytes:
    size = size or {"width": 160, "height": 160}
    return image(cartoon_photograph([(20, 20, side)], **size))


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Seven photographs of three people, three of them with a face that will do."""
    folder = tmp_path_factory.mktemp("people")
    two = image(cartoon_photograph([(0, 0, 70), (90, 20, 120)], width=230, height=160), "WEBP")
    files = {
        "ada/1.png": portrait(),
        "ada/2.webp": two,
        "ada/album/3.png": portrait(130),
        "bob/1.png": image(np.full((160, 160, 3), BACKGROUND, np.uint8)),
        "bob/2.jpg": b"no image",
        "cleo/1.png": portrait()[:400],
        "stray.png": portrait(),
        "ada/.DS_Store": b"hidden",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def lines(report: Path) -> list[dict[str, str]]:
    with report.open(newline="") as file:
        return list(csv.DictReader(file))


def test_faces_are_kept_and_every_photograph_is_told_of(people, tmp_path):
    done = prepare(people, tmp_path / "out" / "train.rec", threads=2)
    assert (done.kept, done.people, done.without_crop) == (3, 1, ["bob", "cleo"])
    assert done.rejected == {"unreadable": 2, "no face": 1, "no person": 1}
    told = {row["file"]: row for row in lines(done.report)}
    assert list(told) == [
        *("ada/1.png", "ada/2.webp", "ada/album/3.png", "bob/1.png", "bob/2.jpg", "cleo/1.png"),
        "stray.png",
    ]
    assert {file: row["outcome"] for file, row in told.items() if row["outcome"] != "kept"} == {
        "bob/1.png": "no face",
        "bob/2.jpg": "unreadable",
        "cleo/1.png": "unreadable",
        "stray.png": "no person",
    }
    assert "ends before its pixels do" in told["cleo/1.png"]["detail"]
    assert (told["ada/2.webp"]["faces"], told["ada/2.webp"]["label"]) == ("2", "0")
    crops = read_rec(tmp_path / "out" / "train.rec")
    assert crops.labels_N.tolist() == [0, 0, 0]
    assert crops.pixels_NHWC.shape == (3, 112, 112, 3)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("property", "train.heads.npz", "train.idx", "train.rec", "train.report.csv")
    ]


def test_people_without_a_crop_leave_no_gap_in_the_labels(people, tmp_path):
    folder = tmp_path / "people"
    for name in ("anna", "otto", "zoe"):
        (folder / name).mkdir(parents=True)
        if name != "otto":
            (folder / name / "1.png").write_bytes(portrait())
    (folder / "otto" / "1.png").write_bytes(b"no image")
    done = prepare(folder, tmp_path / "a.rec")
    assert read_rec(tmp_path / "a.rec").labels_N.tolist() == [0, 1]
    assert [row["label"] for row in lines(done.report)] == ["0", "", "1"]


def test_a_face_whose_eyes_are_too_close_is_too_small(tmp_path):
    (tmp_path / "people" / "ada").mkdir(parents=True)
    (tmp_path / "people" / "ada" / "1.png").write_bytes(portrait())
    (tmp_path / "people" / "ada" / "2.png").write_bytes(portrait(60, width=100, height=100))
    done = prepare(tmp_path / "people", tmp_path / "a.rec")
    assert done.rejected == {"too small": 1}
    assert "18 are asked for" in lines(done.report)[1]["detail"]


def test_of_several_faces_the_largest_near_the_centre_is_taken(tmp_path):
    (tmp_path / "people" / "ada").mkdir(parents=True)
    picture = cartoon_photograph([(0, 0, 130), (200, 140, 120)], width=520, height=400)
    (tmp_path / "people" / "ada" / "1.png").write_bytes(image(picture))
    done = prepare(tmp_path / "people", tmp_path / "a.rec")
    assert lines(done.report)[0]["faces"] == "2"
    central = as_jpeg(service_crop(image(picture), nth=1))  # the second largest
    assert Records(tmp_path / "a.rec").read(40).image == central


def service_crop(data: bytes, nth: int = 0):
    """The crop of a photograph's n-th largest face, as the service makes it."""
    graphs = load_artefact(SHIPPED_MODELS / "mtcnn", threads=1, device="cpu").graphs
    cascade = Cascade(**{name: session.run for name, session in graphs.items()})
    photograph = read_photograph(data, max_bytes=1 << 30, max_pixels=1 << 30)
    face = detect_faces(photograph, cascade)[nth]
    return align_crops(photograph, [face.landmarks_52])[0]


@needs_shared("golden/photos")
def test_real_photographs_give_the_crops_that_the_service_makes(tmp_path):
    names = ["005_face_recognition_biden.jpg", "010_face_recognition_obama_small.jpg"]
    people = tmp_path / "people"
    for name in [*names, "062_CodeProject-AI-S_cat-on-wall.jpg"]:
        (people / name[:3]).mkdir(parents=True)
        (people / name[:3] / "1.jpg").symlink_to(PHOTOS / name)
    done = prepare(people, tmp_path / "a.rec")
    assert (done.kept, done.rejected, done.without_crop) == (2, {"no face": 1}, ["062"])
    records = Records(tmp_path / "a.rec")
    images = [records.read(int(at)).image for at in records.offsets()[1:3]]
    assert images == [as_jpeg(service_crop((PHOTOS / name).read_bytes())) for name in names]


def test_crops_of_another_size_hold_the_same_face(people, tmp_path):
    prepare(people, tmp_path / "a" / "a.rec")
    prepare(people, tmp_path / "b" / "b.rec", size=224)
    small = read_rec(tmp_path / "a" / "a.rec").pixels_NHWC[0]
    large = read_rec(tmp_path / "b" / "b.rec").pixels_NHWC[0]
    assert large.shape == (224, 224, 3)
    assert np.abs(cv2.resize(large, (112, 112)).astype(int) - small).mean() < 6


def many(folder: Path, count: int = 12) -> Path:
    for i in range(count):
        path = folder / f"p{i // 4}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image" if i % 5 == 3 else portrait(100 + i, width=150, height=150))
    return folder


# Looks at seven photographs, tells of it and then waits for its end.
UNTIL_KILLED = """
import sys
from pathlib import Path
from training.data import prepare as preparing

look_at, seen = preparing.look_at, []

def look_until(folder, file, *rest):
    seen.append(file)
    if len(seen) > 7:
        print("seven", flush=True)
        sys.stdin.read()
    return look_at(folder, file, *rest)

preparing.EVERY, preparing.look_at = 2, look_until
preparing.prepare(Path(sys.argv[1]), Path(sys.argv[2]), threads=1)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A folder `people`, what `whole` comes of it, and `broken`: the same killed on its way."""
    folder = tmp_path_factory.mktemp("killed")
    many(folder / "people")
    prepare(folder / "people", folder / "whole" / "a.rec")
    with subprocess.Popen(
        [sys.executable, "-c", UNTIL_KILLED, folder / "people", folder / "broken" / "a.rec"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout.readline() == b"seven\n"
        process.kill()
    return folder


def copied(killed: Path, to: Path) -> Path:
    """A copy of the broken run; its a.rec is to be."""
    to.mkdir()
    for path in (killed / "broken").iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to / "a.rec"


def same_as_whole(killed: Path, out: Path) -> bool:
    names = ("a.rec", "a.idx", "property", "a.report.csv")
    return sorted(p.name for p in out.parent.iterdir()) == sorted(names) and all(
        (out.parent / name).read_bytes() == (killed / "whole" / name).read_bytes() for name in names
    )


def test_a_killed_run_leaves_nothing_under_its_name_and_goes_on(killed, tmp_path, monkeypatch):
    out = copied(killed, tmp_path / "out")
    assert sorted(p.name for p in out.parent.iterdir()) == ["a.rec.part", "a.report.csv.part"]
    done = len(lines(out.parent / "a.report.csv.part"))
    assert 2 <= done <= 7
    seen = []
    look_at = preparing.look_at
    monkeypatch.setattr(preparing, "look_at", lambda *a: seen.append(a[1]) or look_at(*a))
    prepare(killed / "people", out)
    assert same_as_whole(killed, out)
    assert len(seen) == 12 - done  # nothing is looked at twice


def spoil(out: Path, spoilt: str) -> None:
    """What a machine that fell over may leave of a run."""
    rec, report = out.with_suffix(".rec.part"), out.with_suffix(".report.csv.part")
    if spoilt == "half a crop more":
        rec.write_bytes(rec.read_bytes() + b"\x0a\x23\xd7\xce half")
    elif spoilt == "half a line more":
        report.write_bytes(report.read_bytes() + b"p1/06.png,p1,kept,,1,1,99")
    elif spoilt == "a line without its crop":
        rec.write_bytes(rec.read_bytes()[:-100])
    elif spoilt == "no crops":
        rec.unlink()
    elif spoilt == "an empty report":
        report.write_bytes(b"")
    elif spoilt == "half a heading":
        report.write_bytes(report.read_bytes()[:10])
    else:
        report.unlink()


@pytest.mark.parametrize(
    "spoilt",
    [
        *("half a crop more", "half a line more", "a line without its crop", "no crops"),
        *("an empty report", "half a heading", "no report"),
    ],
)
def test_whatever_is_left_the_run_comes_to_the_same_end(killed, tmp_path, spoilt):
    out = copied(killed, tmp_path / "out")
    spoil(out, spoilt)
    prepare(killed / "people", out)
    assert same_as_whole(killed, out)


@pytest.mark.parametrize("named", [[], ["a.idx"], ["a.idx", "property"], ["a.rec"]])
def test_a_run_killed_while_it_gave_names_goes_on(killed, tmp_path, named):
    out = tmp_path / "out" / "a.rec"
    out.parent.mkdir()
    for name in ("a.rec", "a.report.csv"):
        (out.parent / f"{name}.part").write_bytes((killed / "whole" / name).read_bytes())
    for name in named:
        (out.parent / f"{name}.part").unlink(missing_ok=True)
        (out.parent / name).write_bytes((killed / "whole" / name).read_bytes())
    if "a.rec" in named:
        for name in ("a.idx", "property"):
            (out.parent / name).write_bytes((killed / "whole" / name).read_bytes())
    prepare(killed / "people", out)
    assert same_as_whole(killed, out)


def test_a_full_disk_is_told_and_what_was_done_stays(killed, tmp_path):
    out = tmp_path / "out" / "a.rec"
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1));"
        "from pathlib import Path; from training.data import prepare as p; p.EVERY = 1;"
        f"p.prepare(Path({str(killed / 'people')!r}), Path({str(out)!r}))"
    )
    run = subprocess.run([sys.executable, "-c", limited], cwd=REPOSITORY, capture_output=True)
    assert run.returncode == 1
    last = run.stderr.decode().splitlines()[-1]
    assert last.startswith(f"ValueError: {out} cannot be written: File too large; what was done")
    assert not out.exists()
    assert lines(out.with_suffix(".report.csv.part"))
    prepare(killed / "people", out)
    assert same_as_whole(killed, out)


def test_a_folder_that_is_no_longer_the_same_is_refused(killed, tmp_path):
    out = copied(killed, tmp_path / "out")
    people = tmp_path / "people"
    (people / "p0").mkdir(parents=True)
    for name in ("00.png", "01.png", "01b.png", "02.png"):
        (people / "p0" / name).symlink_to(killed / "people" / "p0" / "00.png")
    with pytest.raises(ValueError, match=r"has p0/02\.png where the folder has p0/01b\.png"):
        prepare(people, out)
    (people / "p0" / "01b.png").unlink()
    (people / "p0" / "02.png").unlink()
    with pytest.raises(ValueError, match=r"has p0/02\.png where the folder has no more"):
        prepare(people, out)


def test_a_run_with_another_size_is_refused(killed, tmp_path):
    out = copied(killed, tmp_path / "out")
    with pytest.raises(ValueError, match="crops of 112 px, not 128"):
        prepare(killed / "people", out, size=128)


def test_a_second_run_at_the_same_time_is_refused(killed, tmp_path):
    out = copied(killed, tmp_path / "out")
    with out.with_suffix(".report.csv.part").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is at it"):
            prepare(killed / "people", out)


@pytest.mark.parametrize(
    ("out", "size", "complaint"),
    [
        ("a.bin", 112, r"a\.bin is not named \.rec"),
        ("there.rec", 112, r"there\.rec is there already"),
        ("a.rec", 112, r"there\.rec lies beside a\.rec"),
        ("new/a.rec", 8, "size is 8; crops have 32 to 1024 px"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(killed, tmp_path, out, size, complaint):
    (tmp_path / "there.rec").touch()
    with pytest.raises(ValueError, match=complaint):
        prepare(killed / "people", tmp_path / out, size=size)
    assert [p.name for p in tmp_path.iterdir()] == ["there.rec"]


def test_what_a_system_put_there_gives_no_crop_and_is_named(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "people"
    names = ("ada/1.png", "#recycle/bob/1.png", "#recycle/bob/2.png", "ada/SYNOPHOTO_THUMB_XL.png")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(portrait())
    done = prepare(folder, tmp_path / "a" / "a.rec")
    assert (done.kept, done.people, done.rejected) == (1, 1, {})
    skipped = {"system folder #recycle": 2, "system file SYNOPHOTO_THUMB_XL.png": 1}
    assert done.skipped == skipped
    assert [row["file"] for row in lines(done.report)] == ["ada/1.png"]
    monkeypatch.setattr(
        sys, "argv", ["training", "prepare", str(folder), str(tmp_path / "b" / "b.rec")]
    )
    main()
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if "skipped" in line] == [
        f"  {count} skipped: {reason}" for reason, count in skipped.items()
    ]


def test_a_folder_one_level_too_high_is_refused(tmp_path):
    folder = tmp_path / "above"
    for name in ("ada", "bob"):
        (folder / "set" / name).mkdir(parents=True)
        (folder / "set" / name / "1.png").write_bytes(portrait())
    with pytest.raises(ValueError, match=r"set holds folders of its own \(ada, bob\), .*: give "):
        prepare(folder, tmp_path / "a.rec")
    assert prepare(folder / "set", tmp_path / "a.rec").people == 2


def test_a_set_is_not_written_among_its_photographs(killed):
    out = killed / "people" / "ada" / "a.rec"
    with pytest.raises(ValueError, match=r"a\.rec lies in .*people, where it would be taken for"):
        prepare(killed / "people", out)
    assert not out.parent.joinpath("a.report.csv.part").exists()


def test_a_folder_without_a_usable_face_is_told(tmp_path):
    (tmp_path / "people" / "ada").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no file in a person's folder"):
        prepare(tmp_path / "people", tmp_path / "a.rec")
    (tmp_path / "people" / "ada" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"no photograph gave a crop; .*csv\.part tells"):
        prepare(tmp_path / "people", tmp_path / "a.rec")
    assert not (tmp_path / "a.rec").exists()


def test_a_report_that_is_none_is_left_alone(killed, tmp_path):
    (tmp_path / "a.report.csv.part").write_text("my notes\non faces\n")
    with pytest.raises(ValueError, match="no report of a preparation"):
        prepare(killed / "people", tmp_path / "a.rec")
    assert (tmp_path / "a.report.csv.part").read_text() == "my notes\non faces\n"


def test_names_of_any_bytes_are_reported(tmp_path):
    folder = os.fsencode(tmp_path / "people") + b"/ad\xe9"
    os.makedirs(folder)
    with open(folder + b'/a,\n"1".png', "wb") as file:
        file.write(portrait())
    prepare(tmp_path / "people", tmp_path / "a.rec")
    assert b'"ad\xe9/a,\n""1"".png",ad\xe9,kept' in (tmp_path / "a.report.csv").read_bytes()


def test_the_command_says_what_became_of_the_folder(people, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a.rec"
    monkeypatch.setattr(sys, "argv", ["training", "prepare", str(people), str(out)])
    main()
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"{out}: 3 of 7 photographs, 1 people",
        "  2 rejected: unreadable",
        "  1 rejected: no face",
        "  1 rejected: no person",
        "  without a crop: bob, cleo",
        f"  {tmp_path / 'a.report.csv'} tells of each photograph",
    ]
    assert "7/7" in told.err
    with pytest.raises(SystemExit, match="is there already"):
        main()


def test_ctrl_c_ends_the_command_with_130_and_no_traceback(monkeypatch, tmp_path, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.verbs.prepare.prepare", stopped)
    monkeypatch.setattr("sys.argv", ["training", "prepare", str(tmp_path), str(tmp_path / "a.rec")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nstopped\n"
