"""Folders of people: what a system put there is skipped, and a folder too high is refused."""

from pathlib import Path

import pytest

from service.people_folder import require_folder_per_person, system_reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("#recycle/ada/1.jpg", "system folder #recycle"),
        ("ada/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg", "system folder @eaDir"),
        ("$RECYCLE.BIN/S-1-5-21/$R1.jpg", "system folder $RECYCLE.BIN"),
        ("$Recycle.Bin/1.jpg", "system folder $Recycle.Bin"),
        ("lost+found", "system folder lost+found"),
        (".Trash-1000/files/1.jpg", "system folder .Trash-1000"),
        (".Trashes/501/1.jpg", "system folder .Trashes"),
        ("__MACOSX/ada/._1.jpg", "system folder __MACOSX"),
        ("@Recently-Snapshot/GMT+01/ada/1.jpg", "system folder @Recently-Snapshot"),
        ("#snapshot/ada/1.jpg", "system folder #snapshot"),
        ("ada/.@__thumb/s1001.jpg", "system folder .@__thumb"),
        ("ada/.AppleDouble/1.jpg", "system folder .AppleDouble"),
        (".thumbnails/normal/1.png", "system folder .thumbnails"),
        ("System Volume Information/1.jpg", "system folder System Volume Information"),
        ("found.000/file0001.jpg", "system folder found.000"),
        ("ada/SYNOPHOTO_THUMB_XL.jpg", "system file SYNOPHOTO_THUMB_XL.jpg"),
        ("ada/SYNOFILE_THUMB_M.png", "system file SYNOFILE_THUMB_M.png"),
        ("ada/Thumbs.db", "system file Thumbs.db"),
    ],
)
def test_what_a_system_put_there_is_skipped_by_its_name(path: str, reason: str) -> None:
    assert system_reason(path) == reason


@pytest.mark.parametrize(
    "path", ["ada/1.jpg", "@ada/1.jpg", "#1/1.jpg", "trash/1.jpg", "ada/thumb_1.jpg", "$ada/1.jpg"]
)
def test_what_a_person_may_be_called_is_not_skipped(path: str) -> None:
    assert system_reason(path) is None


@pytest.mark.parametrize(
    "files",
    [
        ["ada/1.jpg", "ben/1.jpg"],
        ["ada/1.jpg", "ada/album/2.jpg", "ada/album/day 1/3.jpg"],
        ["ada/1.jpg", "ada/2.JPG", "ada/one/3.jpg", "ada/two/4.jpg"],
        ["ada/album/1.jpg", "ben/1.jpg"],
        ["loose.jpg"],
        [],
    ],
)
def test_albums_below_a_persons_own_photographs_are_that_persons(files: list[str]) -> None:
    require_folder_per_person(Path("people"), files)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["lfw/ada/1.jpg"], r"\(ada\)"),
        (["lfw/ada/1.jpg", "lfw/ben/1.jpg", "lfw/cleo/1", "lfw/dan/1"], r"\(ada, ben, cleo, ...\)"),
        (["lfw/group.jpg", "lfw/ada/1.jpg", "lfw/ben/1.jpg"], r"\(ada, ben\)"),
        (["lfw/README.txt", "lfw/ada/photos/1.jpg"], r"\(ada\)"),
        (["ada/1.jpg", "lfw/ben/1.jpg", "lfw/cleo/1.jpg"], r"\(ben, cleo\)"),
    ],
)
def test_a_folder_one_level_too_high_is_refused_with_the_one_to_give(
    files: list[str], named: str
) -> None:
    message = rf"^people/lfw holds folders of its own {named}, .*: give people/lfw if those are"
    with pytest.raises(ValueError, match=message):
        require_folder_per_person(Path("people"), files)
