"""The images and the compose file: linted, read by their own programs, and walked step by step."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.guard.keys import read_secret
from service.guard.templates import read_template_keys
from service.settings import MIB, Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
PROGRAMS = Path(sysconfig.get_path("scripts"))
OFF = ("--with", "MIEN_EXPRESSION=off", "--with", "MIEN_ATTRIBUTES=off")


def can_walk() -> bool:
    """Whether this process may mount an overlay on the root, in a namespace of its own."""
    mount = "d=$(mktemp -d) && mkdir $d/u $d/w $d/r && mount -t overlay overlay $d/r -o "
    mount += "lowerdir=/,upperdir=$d/u,workdir=$d/w; s=$?; umount $d/r; rm -rf $d; exit $s"
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount]
    return os.geteuid() == 0 and subprocess.run(words, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(
    sys.platform != "linux" or not can_walk(), reason="overlays cannot be mounted here"
)


def compose(*words: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COMPOSE")}
    return subprocess.run(
        [PROGRAMS / "docker-compose", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    """The compose file as Compose reads it, with every profile."""
    words = ("--profile", "cpu", "--profile", "gpu", "--profile", "postgres")
    document: dict[str, Any] = json.loads(compose(*words, "config", "--format", "json"))
    return document


def test_the_dockerfile_has_nothing_to_lint() -> None:
    said = subprocess.run([PROGRAMS / "hadolint", DOCKERFILE], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize(
    ("profiles", "started"),
    [
        ((), {"mien", "prometheus", "grafana"}),
        (("gpu",), {"mien-gpu", "prometheus", "grafana"}),
        (("cpu", "postgres"), {"mien", "prometheus", "grafana", "postgres"}),
    ],
)
def test_a_profile_starts_what_it_says(profiles: tuple[str, ...], started: set[str]) -> None:
    words = [word for profile in profiles for word in ("--profile", profile)]
    assert set(compose(*words, "config", "--services").split()) == started


def test_every_container_is_held_to_what_it_needs(everything: dict[str, Any]) -> None:
    for name, service in everything["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory"} <= set(limits), name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        if "build" in service:
            assert "USER 10001:10001" in stage_of(service["build"]["target"])
            assert "HEALTHCHECK" in stage_of(service["build"]["target"])
        else:
            assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
            assert "test" in service["healthcheck"], name
            assert re.search(r":v?\d+\.\d+", service["image"]), f"{name} is not pinned"


@pytest.mark.parametrize(("name", "base_mib"), [("mien", 0), ("mien-gpu", 1500)])
def test_what_the_service_takes_at_most_fits_the_memory_of_its_container(
    everything: dict[str, Any], name: str, base_mib: int
) -> None:
    """docs/operations.md's sum, with what is in /tmp and 100,000 faces. base_mib: CUDA's own."""
    service = everything["services"][name]
    limits = service["deploy"]["resources"]["limits"]
    given = {
        name.removeprefix("MIEN_").lower(): value
        for name, value in service["environment"].items()
        if not name.endswith("_FILE")
    }
    settings = Settings(**given)
    assert settings.photographs <= float(limits["cpus"])
    [tmpfs] = service["tmpfs"]
    tmp_mib = int(re.search(r"size=(\d+)m", tmpfs)[1])  # type: ignore[index]
    faces = 100_000 * 2048 * settings.workers
    most = settings.worst_case_bytes + faces + (tmp_mib + base_mib) * MIB
    assert most <= int(limits["memory"])


def stage_of(target: str) -> str:
    """The steps of a stage."""
    stages = re.split(r"^FROM ", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    [stage] = [s for s in stages if s.split("\n")[0].endswith(f" AS {target}")]
    return stage


def test_the_two_images_differ_in_base_extra_and_device_alone() -> None:
    def steps(stage: str) -> list[str]:
        text = re.sub(r"\bgpu\b", "cpu", stage_of(stage)).split("\n\nFROM ")[0]
        return [line for line in text.split("\n")[1:] if line and not line.startswith("#")]

    assert steps("gpu-build") == steps("cpu-build")
    own = [line for line in steps("gpu") if re.search(r"NVIDIA|MIEN_DEVICE|start-period", line)]
    assert own == [
        "    NVIDIA_VISIBLE_DEVICES=all \\",
        "    NVIDIA_DRIVER_CAPABILITIES=compute,utility \\",
        "    MIEN_DEVICE=cuda \\",
        "HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \\",
    ]
    cpu = [line for line in steps("cpu") if "start-period" not in line]
    assert [line for line in steps("gpu") if line not in own] == cpu


def test_the_bases_of_the_images_are_pinned() -> None:
    bases = re.findall(r"^ARG \w+_IMAGE=(\S+)$", DOCKERFILE.read_text(), flags=re.MULTILINE)
    assert len(bases) == 2
    assert all(re.search(r":\d+\.\d+\.\d+-", base) for base in bases)


def test_secrets_come_as_files_and_never_as_values(everything: dict[str, Any]) -> None:
    used = set()
    for name, service in everything["services"].items():
        secrets = {secret["source"] for secret in service.get("secrets", [])}
        used |= secrets
        for variable, value in service.get("environment", {}).items():
            if re.search(r"KEY|PASSWORD|SECRET", variable):
                assert value in {f"/run/secrets/{secret}" for secret in secrets}, (name, variable)
    assert used == set(everything["secrets"])
    made = re.findall(r"\| keep (\w+)", (ROOT / "docker" / "secrets.sh").read_text())
    assert sorted(made) == sorted(used)


def test_what_is_mounted_is_there(everything: dict[str, Any]) -> None:
    for name, service in everything["services"].items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), (name, volume["source"])
            else:
                assert volume["source"] in everything["volumes"], name


def test_prometheus_scrapes_the_service_with_the_key_that_it_is_given(
    everything: dict[str, Any],
) -> None:
    config = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    job = config["scrape_configs"][0]
    prometheus, mien = (everything["services"][name] for name in ("prometheus", "mien"))
    key_file = job["authorization"]["credentials_file"]
    assert key_file == mien["environment"]["MIEN_KEY_FILE"]
    assert [secret["target"] for secret in prometheus["secrets"]] == [key_file]
    [host, port] = job["static_configs"][0]["targets"][0].split(":")
    assert host in everything["services"]
    assert int(port) == mien["ports"][0]["target"]


def test_grafana_finds_its_source_and_its_dashboards(everything: dict[str, Any]) -> None:
    grafana = everything["services"]["grafana"]
    provisioning = ROOT / "docker/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((provisioning / "dashboards/mien.yml").read_text())
    mounted = {volume["target"] for volume in grafana["volumes"]}
    assert provider["providers"][0]["options"]["path"] in mounted


def test_secrets_are_made_once_and_are_such_as_the_service_takes(tmp_path: Path) -> None:
    script = shutil.copy(ROOT / "docker" / "secrets.sh", tmp_path)
    for _ in range(2):
        subprocess.run([script], check=True, capture_output=True)
        folder = tmp_path / "secrets"
        assert folder.stat().st_mode & 0o777 == 0o700
        told = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert all(path.stat().st_mode & 0o777 == 0o444 for path in folder.iterdir())
        key = read_secret(folder / "mien_key")
        [template_key] = read_template_keys(folder / "mien_template_key").values()
        assert (len(key), len(template_key)) == (64, 32)
        assert len(set(told.values())) == len(told)
    assert told == {path.name: path.read_bytes() for path in folder.iterdir()}
    ignored = subprocess.run(["git", "check-ignore", "-q", "docker/secrets/mien_key"], cwd=ROOT)
    assert ignored.returncode == 0


@needs_mounts
def test_the_steps_of_the_image_work_and_it_serves_from_a_read_only_root() -> None:
    """Without pip's downloads: what Mien stands on is that of this environment."""
    packages = sysconfig.get_path("purelib")
    said = walk("cpu", "--offline", packages, *OFF)
    for promise in ("serves", "healthy", "guarded", "contained", "stopped"):
        assert re.search(rf"^{promise}: ", said, flags=re.MULTILINE), said


@needs_mounts
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("target", "more"), [("cpu", ()), ("gpu", ("--build-only",))])
def test_every_step_of_an_image_works_with_all_that_it_downloads(
    target: str, more: tuple[str, ...]
) -> None:
    walk(target, *more)


def walk(*words: str) -> str:
    script = [sys.executable, ROOT / "docker" / "walk.py", *words]
    said = subprocess.run(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert said.returncode == 0, said.stdout
    return said.stdout
