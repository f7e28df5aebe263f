"""service/settings.py: named after its variables, refused by the variable's name."""

import os
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import (
    PREFIX,
    Settings,
    client_key,
    client_url,
    hand_down,
    metrics_folder,
    read_settings,
    unknown_variables,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of the test's own, without settings."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    monkeypatch.setattr(os, "environ", mine)
    return mine


def test_without_variables_it_serves_this_machine_alone_from_the_models_that_ship() -> None:
    settings = read_settings()
    assert (settings.host, settings.port, settings.device) == ("127.0.0.1", 8000, "cpu")
    assert (settings.models / settings.detection / "manifest.json").is_file()
    assert settings.data == Path("mien-data")


def test_a_variable_sets_its_field(environment: dict[str, str]) -> None:
    environment.update(MIEN_PORT="9", MIEN_DATA="/elsewhere", MIEN_DEVICE="cuda")
    settings = read_settings()
    assert (settings.port, settings.data, settings.device) == (9, Path("/elsewhere"), "cuda")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MIEN_PORT", "eighty"),
        ("MIEN_PORT", "65536"),
        ("MIEN_WORKERS", "0"),
        ("MIEN_DEVICE", "tpu"),
        ("MIEN_MAX_PIXELS", "-1"),
        ("MIEN_RECOGNITION", "../elsewhere"),
        ("MIEN_EXPRESSION", ""),
        ("MIEN_ATTRIBUTES", "a/b"),
        ("MIEN_BODY_TIMEOUT_S", "nan"),
        ("MIEN_LOG", "xml"),
        ("MIEN_KEYS", "maybe"),
        ("MIEN_AUDIT", "off"),
        ("MIEN_KEY_FILE", ""),
        ("MIEN_OTLP_ENDPOINT", "collector:4318"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_variable(
    environment: dict[str, str], name: str, value: str
) -> None:
    environment[name] = value
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert refused.value.variable == name
    assert value in refused.value.reason


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ("http://a.local:8911", "http://a.local:8911"),
        ("*.local", "*.local"),
        ("faces.example, *", "*"),
        ("faces.example/api", "faces.example/api"),
        ("a b.local", "a b.local"),
        ("gesichter-münchen.example", "gesichter-münchen.example"),
        (".local", ".local"),
        ("fd00::g", "fd00::g"),
        ("user@faces.example", "user@faces.example"),
    ],
)
def test_a_name_that_no_caller_can_use_is_refused(
    environment: dict[str, str], hosts: str, name: str
) -> None:
    environment["MIEN_HOSTS"] = hosts
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert refused.value.variable == "MIEN_HOSTS"
    assert refused.value.reason.startswith(f"{name!r} matches no caller; write a name or address")


def test_what_was_given_in_the_code_goes_before_the_environment(
    environment: dict[str, str],
) -> None:
    environment["MIEN_PORT"] = "9"
    assert read_settings(port=10).port == 10


def test_settings_handed_down_are_read_again_as_they_were(environment: dict[str, str]) -> None:
    settings = Settings(port=0, data=Path("some where"), batch=3, body_timeout_s=1.5)
    assert metrics_folder() is None
    hand_down(settings, Path("counts"))
    assert read_settings() == settings
    assert metrics_folder() == Path("counts")


def test_cores_are_shared_out_among_workers_and_every_worker_has_one() -> None:
    cores = Settings().cores_a_worker
    assert cores >= 1
    assert Settings(workers=256).cores_a_worker == max(1, cores // 256)
    assert Settings().runs_at_once == cores
    assert Settings(device="cuda").runs_at_once == 1
    assert Settings(photographs=5).photographs_at_once == 5


def test_every_task_has_its_network_unless_it_is_off(environment: dict[str, str]) -> None:
    assert read_settings().networks == {
        "detection": "mtcnn",
        "recognition": "ecacface-mobile",
        "expression": "patt-lite",
        "attributes": "mzts",
    }
    environment.update(MIEN_EXPRESSION="off", MIEN_ATTRIBUTES="another")
    assert list(read_settings().networks) == ["detection", "recognition", "attributes"]
    assert read_settings().networks["attributes"] == "another"


def test_a_slip_of_the_pen_is_noticed() -> None:
    assert unknown_variables({"MIEN_PROT": "1", "MIEN_PORT": "1", "OTHER": "1"}) == ["MIEN_PROT"]


def test_the_key_that_commands_show_is_no_setting_and_no_slip(
    environment: dict[str, str],
) -> None:
    assert client_key() is None
    environment["MIEN_KEY"] = "mien_abc"
    assert client_key() == "mien_abc"
    assert unknown_variables(environment) == []
    assert "mien_abc" not in repr(read_settings())


def test_the_server_that_commands_ask_is_no_setting_and_no_slip(
    environment: dict[str, str],
) -> None:
    assert client_url() is None
    environment["MIEN_URL"] = ""
    assert client_url() is None
    environment["MIEN_URL"] = "http://faces.example"
    assert client_url() == "http://faces.example"
    assert unknown_variables(environment) == []


@pytest.mark.parametrize(
    ("host", "keys", "guarded"),
    [
        ("127.0.0.1", "auto", False),
        ("127.1.2.3", "auto", False),
        ("::1", "off", False),
        ("localhost", "auto", False),
        ("localhost", "required", True),
        ("0.0.0.0", "auto", True),
        ("::", "auto", True),
        ("10.0.0.1", "required", True),
        ("localhost.example", "auto", True),
    ],
)
def test_keys_are_asked_for_wherever_others_can_come_in(
    host: str, keys: str, guarded: bool
) -> None:
    settings = read_settings(host=host, keys=keys)
    assert settings.guarded is guarded
    assert settings.unguarded().guarded is False


def test_keys_are_not_switched_off_where_others_can_come_in() -> None:
    with pytest.raises(SettingsError, match=r"MIEN_KEYS: off, with MIEN_HOST=0\.0\.0\.0"):
        assert read_settings(host="0.0.0.0", keys="off").guarded


def test_the_memory_for_bodies_has_room_for_the_largest_twice() -> None:
    assert Settings(max_body_bytes=1000).buffered_bytes == 4000
    assert Settings(max_body_bytes=1000, max_buffered_bytes=2000).buffered_bytes == 2000
    with pytest.raises(SettingsError, match=r"MIEN_MAX_BUFFERED_BYTES.*at least 2000"):
        read_settings(max_body_bytes=1000, max_buffered_bytes=1999)
