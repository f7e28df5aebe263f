"""`mien backup` and `mien restore`, on the data folder itself."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from service.backup.restore import Restored, restore_backup
from service.backup.take import Backup, take_backup
from service.cli.door import local_settings, reported
from service.cli.keys import AsJson, Data
from service.cli.plain import plain_errors
from service.cli.record import note_in_audit
from service.cli.tables import print_json
from service.gallery import DATA_KEYS_FILE_NAME
from service.gallery.copies import Contents


def backup(
    target: Annotated[
        Path, typer.Argument(help="A folder that is made, or one file if it ends in .tar.")
    ],
    data_keys: Annotated[
        Path | None,
        typer.Option(help="Copy the data keys of sealed persons to this file, kept apart."),
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Copy galleries, calibrations, keys and audit log as they are at one moment.

    A server may serve and enrol meanwhile; whoever was enrolled before is in it. It appears under
    its name when it is whole, looked through and on disk. See docs/backup.md.
    """
    with plain_errors():
        settings = local_settings(data)
        with_keys = data_keys is not None
        with reported(settings):
            taken = take_backup(settings.data, target, data_keys=data_keys)
            about = {"data_keys": with_keys, **_counts(taken.contents)}
            note_in_audit(settings.data, "backup", **about)
    if as_json:
        print_json(_backup_facts(taken))
    else:
        _print_all(_backup_told(taken, with_data_keys=with_keys))


def restore(
    backup: Annotated[Path, typer.Argument(exists=True, help="What mien backup made.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put aside what the data folder has now.")
    ] = False,
    data_keys: Annotated[
        Path | None, typer.Option(help="The copy of the data keys that goes with it.")
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Bring a backup back into an empty data folder that nobody serves.

    Every file is held to its SHA-256, and the gallery looked through, before anything is touched.
    """
    with plain_errors():
        settings = local_settings(data)
        with reported(settings):
            back = restore_backup(backup, settings.data, replace=replace, data_keys=data_keys)
            note_in_audit(settings.data, "restore", made=back.made, **_counts(back.contents))
    if as_json:
        print_json(_restored_facts(back))
    else:
        _print_all(_restored_told(back))


def _backup_facts(taken: Backup) -> dict[str, Any]:
    return {**asdict(taken), "path": str(taken.path)}


def _restored_facts(back: Restored) -> dict[str, Any]:
    aside = None if back.aside is None else str(back.aside)
    return {**asdict(back), "aside": aside}


def _print_all(lines: Iterator[str]) -> None:
    for line in lines:
        typer.echo(line)


def _backup_told(taken: Backup, *, with_data_keys: bool) -> Iterator[str]:
    """What was taken, what was not, and what it needs to be brought back."""
    yield f"{taken.path}: {_counted(taken.contents)}, {taken.size_bytes / 2**20:.1f} MiB"
    yield f"in it: {', '.join(taken.files)}"
    if taken.left_out:
        yield f"not in it: {', '.join(taken.left_out)}"
    if taken.contents.sealed:
        keys = "its copy" if with_data_keys else "not in the backup: --data-keys FILE copies it"
        yield (
            f"{taken.contents.sealed} persons are sealed: to bring them back takes "
            f"{DATA_KEYS_FILE_NAME} ({keys}) and the file of MIEN_TEMPLATE_KEY_FILE; keep both "
            "apart from the backup"
        )


def _restored_told(back: Restored) -> Iterator[str]:
    """What was brought back, and what is left to do."""
    yield f"brought back, as of {back.made}: {_counted(back.contents)}"
    if back.stayed:
        yield f"left as they are, since they must not go back in time: {', '.join(back.stayed)}"
    if back.erased_since:
        yield (
            f"{back.erased_since} persons were erased since that backup: nobody can read them, and "
            "they are deleted when the gallery is opened"
        )
    if back.keys_missing:
        yield (
            f"{back.contents.sealed} persons are sealed, and the gallery cannot be opened before "
            f"{DATA_KEYS_FILE_NAME} lies beside it and MIEN_TEMPLATE_KEY_FILE is set"
        )
    if back.aside is not None:
        yield f"what was there before lies in {back.aside}: delete it when it is not needed"


def _counted(contents: Contents) -> str:
    return "{persons} persons with {faces} faces in {galleries} galleries".format(
        **_counts(contents)
    )


def _counts(contents: Contents) -> dict[str, int]:
    return {
        "galleries": len(contents.galleries),
        "persons": sum(gallery.persons for gallery in contents.galleries),
        "faces": sum(gallery.faces for gallery in contents.galleries),
    }
