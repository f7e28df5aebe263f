"""Walks the steps of docker/Dockerfile without an engine, and serves from what they made.

    sudo python docker/walk.py cpu [--offline SITE_PACKAGES]

A stage is a plain folder: an overlay on this machine's own root file system, which stands for the
base image and is not written to. RUN runs in it (chroot), COPY copies what .dockerignore lets by,
ENV, WORKDIR and USER hold from where they stand. Then the last stage's root is made read-only, with
/tmp and the volume beside it, and its ENTRYPOINT is started as its USER with no capability left, as
docker-compose.yml has it: /readyz must say 200, HEALTHCHECK's command must agree, nothing but the
volume and /tmp may be writable, and SIGTERM must end it in time.

What it cannot show: that the base images are there, and what they have and this machine has not.
--offline: nothing is downloaded; what the steps would fetch is taken from those site-packages.
"""

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTER = "/opt/outer-site-packages"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
FOLDER = "MIEN_WALK_FOLDER"  # set inside the mount namespace
READY_S, STOP_S = 600.0, 60.0  # the service promises less, of a machine that is idle


@dataclass
class Stage:
    """A stage on its way. root: where its file system is mounted; None until FROM was taken."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    root: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)


def read_stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by their names."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.split()
            stages[name] = Stage(name, base)
        elif word and stages:
            list(stages.values())[-1].steps.append((word, rest.strip()))
    return stages


class Walk:
    """Builds stages under a folder, each once."""

    def __init__(self, stages: dict[str, Stage], folder: Path, offline: Path | None) -> None:
        self._stages = stages
        self._folder = folder
        self._offline = offline

    def build(self, name: str) -> Stage:
        """The stage of that name, all its steps taken."""
        stage = self._stages[name]
        if stage.root is not None:
            return stage
        base = self.build(stage.base) if stage.base in self._stages else None
        for word, rest in stage.steps:
            if word == "COPY" and rest.startswith("--from="):
                self.build(rest.split()[0].removeprefix("--from="))
        self._mount(stage, base)
        for word, rest in stage.steps:
            began = time.monotonic()
            getattr(self, f"_{word.lower()}")(stage, rest)
            print(f"{name}: {word} {rest[:90]} ({time.monotonic() - began:.1f} s)", flush=True)
        return stage

    def _mount(self, stage: Stage, base: Stage | None) -> None:
        upper, work, root = (self._folder / stage.name / part for part in ("upper", "work", "root"))
        for path in (upper, work, root):
            path.mkdir(parents=True)
        below = base.root if base else "/"
        options = f"lowerdir={below},upperdir={upper},workdir={work}"
        _run("mount", "-t", "overlay", "overlay", "-o", options, root)
        stage.root = root
        stage.environment = dict(base.environment) if base else _environment_of_a_base()
        for path in _parents_of_python():  # a base image's own python can be run by everybody
            inside = root / path.relative_to("/")
            inside.chmod(inside.stat().st_mode | 0o555)
        _run("mount", "-t", "tmpfs", "tmpfs", root / "dev")
        for device in DEVICES:
            (root / "dev" / device).touch()
            _run("mount", "--bind", f"/dev/{device}", root / "dev" / device)
        _run("mount", "-t", "proc", "proc", root / "proc")
        _run("mount", "-t", "tmpfs", "tmpfs", root / "tmp")
        if (hidden := root / ROOT.relative_to("/")).exists():  # no step can reach round COPY
            _run("mount", "-t", "tmpfs", "tmpfs", hidden)
        if self._offline is not None:
            outer = root / OUTER.lstrip("/")
            outer.mkdir(parents=True, exist_ok=True)
            _run("mount", "--bind", self._offline, outer)

    def _run(self, stage: Stage, command: str) -> None:
        environment = dict(stage.environment)
        if self._offline is not None:
            environment |= {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1"}
            environment["PIP_NO_BUILD_ISOLATION"] = "0"  # pip reads this one upside down
        _run(*_inside(stage, "0:0", stage.folder), "/bin/sh", "-c", command, env=environment)
        if self._offline is not None:
            _look_outside(stage)

    def _copy(self, stage: Stage, rest: str) -> None:
        *sources, target = rest.split()
        if sources[0].startswith("--from="):
            origin = self._stages[sources.pop(0).removeprefix("--from=")].root
            assert origin is not None
            found = [origin / source.lstrip("/") for source in sources]
        else:
            allowed = _let_by()
            if refused := [source for source in sources if source not in allowed]:
                raise SystemExit(f"COPY {refused}: .dockerignore keeps it out")
            found = [ROOT / source for source in sources]
        into = _at(stage, os.path.join(stage.folder, target))
        for path in found:
            if path.is_dir():
                skip = shutil.ignore_patterns("__pycache__") if path.parent == ROOT else None
                shutil.copytree(path, into, symlinks=True, ignore=skip, dirs_exist_ok=True)
            else:
                shutil.copy(path, into / path.name if target.endswith("/") else into)

    def _env(self, stage: Stage, rest: str) -> None:
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            known = stage.environment
            stage.environment[name] = re.sub(r"\$(\w+)", lambda m: known.get(m[1], ""), value)  # noqa: B023

    def _workdir(self, stage: Stage, rest: str) -> None:
        stage.folder = rest
        _at(stage, rest).mkdir(parents=True, exist_ok=True)

    def _user(self, stage: Stage, rest: str) -> None:
        stage.user = rest

    def _volume(self, stage: Stage, rest: str) -> None:
        stage.volumes.append(rest)

    def _expose(self, stage: Stage, rest: str) -> None:
        pass

    def _entrypoint(self, stage: Stage, rest: str) -> None:
        stage.entrypoint = json.loads(rest)

    def _cmd(self, stage: Stage, rest: str) -> None:
        stage.command = json.loads(rest)

    def _healthcheck(self, stage: Stage, rest: str) -> None:
        stage.health = json.loads(rest.partition("CMD ")[2])


def serve(stage: Stage, folder: Path, given: Sequence[str]) -> None:
    """Starts the stage's entry point as compose does, and holds it to what is promised."""
    with _reserved_port() as port:
        _serve_on(port, stage, folder, given)


def _serve_on(port: int, stage: Stage, folder: Path, given: Sequence[str]) -> None:
    assert stage.root is not None
    key = secrets.token_hex(32)
    environment = stage.environment | dict(pair.split("=", 1) for pair in given)
    environment |= {"MIEN_PORT": str(port), "MIEN_KEY_FILE": "/run/secrets/mien_key"}
    for volume in stage.volumes:  # a new one begins as the image's folder
        kept = folder / "volumes" / volume.lstrip("/")
        shutil.copytree(_at(stage, volume), kept)
        owner = _at(stage, volume).stat()
        os.chown(kept, owner.st_uid, owner.st_gid)
        kept.chmod(owner.st_mode & 0o777)
        _run("mount", "--bind", kept, _at(stage, volume))
    _run("mount", "-t", "tmpfs", "tmpfs", stage.root / "run")
    (stage.root / "run/secrets").mkdir()
    (stage.root / "run/secrets/mien_key").write_text(key)
    _run("mount", "-o", "remount,ro", stage.root / "run")
    _run("mount", "-o", "remount,ro", stage.root)
    inside = _inside(stage, stage.user, "/")
    words = [*inside, *stage.entrypoint, *stage.command]
    with subprocess.Popen(words, env=environment) as process:
        try:
            _wait_until_ready(port, process)
            print(f"serves: /readyz 200 as {stage.user}, the root read-only", flush=True)
            _run(*inside, *stage.health, env=environment)
            print("healthy: HEALTHCHECK's command agrees", flush=True)
            _hold_to_its_key(port, key)
            _hold_to_its_folders(inside, environment, [*stage.volumes, "/tmp"])
        finally:
            process.terminate()
            code = process.wait(timeout=STOP_S)
    if code not in (0, -signal.SIGTERM):  # 0 as a container's first process
        raise SystemExit(f"SIGTERM ended it with {code}")
    print("stopped: SIGTERM ended it", flush=True)


def _wait_until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + READY_S
    while _status(port, "/readyz") != 200:
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit("it did not become ready")
        time.sleep(0.2)


def _hold_to_its_key(port: int, key: str) -> None:
    """Beyond loopback, /metrics is for who shows the key of the secret's file."""
    told = (_status(port, "/metrics"), _status(port, "/metrics", key))
    if told != (401, 200):
        raise SystemExit(f"/metrics without and with the key: {told}, not 401 and 200")
    print("guarded: /metrics is 401 without the key and 200 with it", flush=True)


def _hold_to_its_folders(
    inside: Sequence[str], environment: dict[str, str], may: list[str]
) -> None:
    """Of these folders and others, its user can write to these alone."""
    tried = [*may, "/", "/opt/mien", "/opt/mien/bin", "/etc", "/var/tmp", "/run/secrets"]
    script = 'for at; do if touch "$at/.tried" 2>/dev/null; then echo "$at"; fi; done'
    words = [*inside, "/bin/sh", "-c", script, "sh", *tried]
    wrote = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    if set(wrote.stdout.split()) != set(may):
        raise SystemExit(f"it can write to {wrote.stdout.split()}, not to {may} alone")
    print(f"contained: it can write to {may} and nowhere else", flush=True)


def _status(port: int, path: str, key: str = "") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return 0


def _inside(stage: Stage, user: str, folder: str) -> list[str]:
    """What runs a command in the stage's root, there, as that user; without capabilities unless
    it is root, who builds."""
    uid, _, gid = user.partition(":")
    words = ["chroot", str(stage.root), "env", f"--chdir={folder}"]
    if uid == "0":
        return words
    limits = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return [*words, "setpriv", f"--reuid={uid}", f"--regid={gid}", *limits, "--"]


def _look_outside(stage: Stage) -> None:
    """Lets the environment of the image see the outer packages, where its own would be."""
    for packages in _at(stage, "/opt/mien/lib").glob("python*/site-packages"):
        (packages / "outer.pth").write_text(f"{OUTER}\n")
        for old in packages.glob("setuptools*"):  # the one that ensurepip brings; pip fetches newer
            shutil.rmtree(old)


def _environment_of_a_base() -> dict[str, str]:
    """That of an image with a python: this machine's, found first."""
    proxies = {
        k: v for k, v in os.environ.items() if k.lower().endswith("_proxy") or k[:4] == "PIP_"
    }
    return {"PATH": f"{sys.base_prefix}/bin:{SYSTEM_PATH}", "HOME": "/root", **proxies}


def _parents_of_python() -> Iterator[Path]:
    path = Path(sys.base_prefix)
    yield from (parent for parent in (path, *path.parents) if parent != Path("/"))


def _let_by() -> set[str]:
    """The names that .dockerignore lets by; it keeps out everything else."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    return {line[1:] for line in lines if line.startswith("!")}


def _at(stage: Stage, path: str) -> Path:
    assert stage.root is not None
    return stage.root / path.lstrip("/")


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A port that the system gives to nobody else meanwhile, and a server may listen on: of two
    sockets with SO_REUSEADDR, Linux lets one listen while the other does not."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        yield int(holder.getsockname()[1])


def _run(*words: str | Path, env: dict[str, str] | None = None) -> None:
    subprocess.run([str(word) for word in words], check=True, env=env)


def main() -> None:
    """Walks in a mount namespace of its own, in a folder that is removed when that has ended: with
    it every mount is gone, so that nothing of the machine is in the folder when it is removed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=("cpu", "gpu"))
    parser.add_argument("--offline", type=Path, metavar="SITE_PACKAGES")
    parser.add_argument("--with", dest="given", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--build-only", action="store_true", help="a GPU's, where there is none")
    asked = parser.parse_args()
    if FOLDER in os.environ:
        walk(asked, Path(os.environ[FOLDER]))
        return
    with tempfile.TemporaryDirectory(prefix="mien-walk-") as name:
        unshared = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        done = subprocess.run(unshared, env={**os.environ, FOLDER: name})
    sys.exit(done.returncode)


def walk(asked: argparse.Namespace, folder: Path) -> None:
    """Builds the target and, unless it is only to be built, serves from it."""
    stages = read_stages((ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"))
    stage = Walk(stages, folder, asked.offline).build(asked.target)
    if not asked.build_only:
        serve(stage, folder, asked.given)


if __name__ == "__main__":
    main()
