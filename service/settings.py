"""Every setting, read from the environment here and nowhere else; docs/settings.md has them."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.cgroup import bounds
from service.errors import SettingsError

PREFIX: Final = "MIEN_"
OFF: Final = "off"  # in the place of a network's name: none is loaded
# Where prometheus_client, by its own rule, keeps the counts of processes that are shown as one.
_METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_CLIENT_KEY: Final = PREFIX + "KEY"
_CLIENT_URL: Final = PREFIX + "URL"
MIB: Final = 1024 * 1024
# What a worker takes at most, see docs/operations.md: the process with four networks (305 MiB were
# measured), one light photograph more (2.1 megapixels), and crops in line for each network but the
# detector's (8192 of 37 KiB).
_BASE_BYTES: Final = (320 + 31) * MIB
_CROPS_BYTES: Final = 294 * MIB
_PIXEL_BYTES: Final = 15  # of a photograph in work
_JSON_BYTES: Final = 7  # for a byte of a JSON body that is being read, if it has an emoji in it
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?(:[0-9]{1,5})?")
LEAST_CONNECTIONS: Final = 16
SHIPPED_MODELS: Final = Path(__file__).parent / "models"


class Settings(BaseSettings):
    """The settings with their defaults; a field `port` is the variable MIEN_PORT."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=256)
    data: Path = Path("mien-data")
    log: Literal["auto", "json", "console"] = "auto"
    otlp_endpoint: str = Field(OFF, pattern=rf"^({OFF}|https?://\S+)$")

    hosts: str = "localhost"
    keys: Literal["auto", "required", "off"] = "auto"
    key_file: str = Field(OFF, min_length=1)
    audit: Literal["auto", "on"] = "auto"
    template_key_file: str = Field(OFF, min_length=1)

    models: Path = SHIPPED_MODELS
    detection: str = Field("mtcnn", pattern=r"^[\w.-]+$")
    recognition: str = Field("ecacface-mobile", pattern=r"^[\w.-]+$")
    expression: str = Field("patt-lite", pattern=r"^[\w.-]+$")
    attributes: str = Field("mzts", pattern=r"^[\w.-]+$")
    population: str = Field("calibration", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(1, ge=1, le=256)
    batch: int = Field(0, ge=0, le=1024)

    photographs: int = Field(0, ge=0, le=256)
    queue: int = Field(64, ge=1, le=100_000)
    max_writes: int = Field(32, ge=1, le=1000)
    max_images: int = Field(32, ge=1, le=1000)
    max_image_bytes: int = Field(20 * MIB, ge=1)
    max_body_bytes: int = Field(64 * MIB, ge=1)
    max_buffered_bytes: int = Field(0, ge=0)
    max_pixels: int = Field(40_000_000, ge=1)
    max_faces: int = Field(256, ge=1, le=10_000)
    body_timeout_s: float = Field(60.0, gt=0)
    call_timeout_s: float = Field(60.0, gt=0)
    max_connections: int = Field(0, ge=0, le=1_000_000)
    head_timeout_s: float = Field(10.0, gt=0)
    write_timeout_s: float = Field(30.0, gt=0)

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: str) -> str:
        """Raise ValueError for what no Host header of a browser can equal."""
        for name in _listed(hosts):
            if not _is_host(name):
                reason = "a name or address as in kiosk.example,192.0.2.7: no scheme, path or *"
                raise ValueError(f"{name!r} matches no caller; write {reason}")
        return hosts

    @field_validator("max_buffered_bytes")
    @classmethod
    def _room_for_a_body(cls, size_bytes: int, info: ValidationInfo) -> int:
        """Raise ValueError for what a body of the largest size could never come into."""
        least = 2 * info.data.get("max_body_bytes", 0)
        if 0 < size_bytes < least:
            raise ValueError(
                f"it must be 0 or at least {least}, twice MIEN_MAX_BODY_BYTES: a caller may hold "
                "half of it"
            )
        return size_bytes

    @field_validator("max_connections")
    @classmethod
    def _enough(cls, connections: int) -> int:
        """Raise ValueError for fewer connections than leave some beside those kept for probes."""
        if 0 < connections < LEAST_CONNECTIONS:
            raise ValueError(f"write at least {LEAST_CONNECTIONS}, or 0 for the default")
        return connections

    @property
    def networks(self) -> dict[str, str]:
        """The network of each task, by its folder's name; without those that are off."""
        features = {"expression": self.expression, "attributes": self.attributes}
        on = {task: name for task, name in features.items() if name != OFF}
        return {"detection": self.detection, "recognition": self.recognition, **on}

    @property
    def guarded(self) -> bool:
        """Whether callers must show a key. Raises SettingsError where nobody would have to."""
        if self.keys == "off" and not self.on_loopback:
            reason = (
                f"off, with MIEN_HOST={self.host}, would serve faces to whoever reaches this "
                "machine; make a key (`mien keys create`) and leave it out, or listen on 127.0.0.1"
            )
            raise SettingsError("MIEN_KEYS", reason)
        return self.keys == "required" or not self.on_loopback

    @property
    def other_hosts(self) -> list[str]:
        """The names in MIEN_HOSTS."""
        return _listed(self.hosts)

    @property
    def on_loopback(self) -> bool:
        """Whether this machine alone can reach the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def template_keys(self) -> Path | None:
        """The file of the keys that templates are sealed with; None: they are not sealed."""
        return None if self.template_key_file == OFF else Path(self.template_key_file)

    @property
    def secret_file(self) -> Path | None:
        """The file with the secret of one more key; None: there is none."""
        return None if self.key_file == OFF else Path(self.key_file)

    def unguarded(self) -> "Settings":
        """The settings for an application inside this process, which nobody else can reach."""
        return self.model_copy(update={"host": "127.0.0.1", "keys": "off"})

    @property
    def calibrations(self) -> Path:
        """The folder of the user's own calibrations."""
        return self.data / "calibrations"

    @property
    def collector(self) -> str | None:
        """The address of the collector of traces; None: there is none."""
        return None if self.otlp_endpoint == OFF else self.otlp_endpoint

    @property
    def cores_a_worker(self) -> int:
        """The cores this process may use, shared out among the worker processes; at least 1.

        Those that it may run on, and no more whole ones than its control group has the time of.
        """
        cores = len(os.sched_getaffinity(0))
        if (bound := bounds().cores) is not None:
            cores = min(cores, int(bound))
        return max(1, cores // self.workers)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of bodies in memory: MIEN_MAX_BUFFERED_BYTES, or as many as four bodies have: two,
        where four would take more than a quarter of the memory that the control group may."""
        if self.max_buffered_bytes:
            return self.max_buffered_bytes
        memory, four = self._memory_bytes, 4 * self.max_body_bytes
        small = memory is not None and _JSON_BYTES * four > memory // 4
        return four // 2 if small else four

    @property
    def _memory_bytes(self) -> int | None:
        """A worker's share of the memory that the control group may take; None: without a bound."""
        memory = bounds().memory_bytes
        return None if memory is None else memory // self.workers

    @property
    def _fixed_bytes(self) -> int:
        """Most memory that a worker takes besides photographs and galleries, in bytes."""
        crops = _CROPS_BYTES * (len(self.networks) - 1)
        return _BASE_BYTES + crops + _JSON_BYTES * self.buffered_bytes

    @property
    def worst_case_bytes(self) -> int:
        """The most memory that all workers take, whatever is sent to them: without galleries, 2 KiB
        a face and worker. docs/operations.md has the sum."""
        photographs = self.photographs_at_once * _PIXEL_BYTES * self.max_pixels
        return self.workers * (self._fixed_bytes + photographs)

    @property
    def photographs_at_once(self) -> int:
        """Photographs decoded at once: MIEN_PHOTOGRAPHS, or the worker's share of the cores, and no
        more than its share of the control group's memory holds at their largest; at least 1."""
        if self.photographs or self._memory_bytes is None:
            return self.photographs or self.cores_a_worker
        room = self._memory_bytes - self._fixed_bytes
        return max(1, min(self.cores_a_worker, room // (_PIXEL_BYTES * self.max_pixels)))

    @property
    def batch_crops(self) -> int:
        """Crops of one run: MIEN_BATCH, or what suits the device.

        On a core, a crop that costs 6.6 ms alone costs 9.7 in a batch of 16 (ecacface-mobile,
        AVX-512, benchmarks/results/int8.md: its planes no longer fit the cache). So a CPU runs one
        crop at a time, on each of its cores; a GPU is made for many.
        """
        return self.batch or {"cpu": 1, "cuda": 64}[self.device]

    @property
    def runs_at_once(self) -> int:
        """Batches in work at once: one a core on a CPU; a GPU does one with all it has."""
        return {"cpu": self.cores_a_worker, "cuda": 1}[self.device]


def read_settings(**given: Any) -> Settings:
    """The settings of the environment, `given` before it. Raises SettingsError by the variable."""
    try:
        return Settings(**given)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        reason = first["msg"].removeprefix("Value error, ")  # before a validator's own words
        raise SettingsError(name, f"{reason} (got {first['input']!r})") from wrong


def _listed(hosts: str) -> list[str]:
    return [name for part in hosts.split(",") if (name := part.strip())]


def _is_host(name: str) -> bool:
    """True if it is a host's name or IPv4 address, with or without a port, or an IPv6 address."""
    if _HOST_NAME.fullmatch(name):
        return True
    try:
        return bool(ipaddress.IPv6Address(re.sub(r"^\[(.*)\](:[0-9]{1,5})?$", r"\1", name)))
    except ValueError:
        return False


def hand_down(settings: Settings, metrics: Path) -> None:
    """Writes the settings into the environment, for the worker processes that start from it.

    metrics: the folder where they keep what they count.
    """
    for name, value in settings.model_dump(mode="json").items():
        os.environ[PREFIX + name.upper()] = str(value)
    os.environ[_METRICS_FOLDER] = str(metrics)


def metrics_folder() -> Path | None:
    """The folder that was handed down; None in a process that counts for itself alone."""
    folder = os.environ.get(_METRICS_FOLDER)
    return None if folder is None else Path(folder)


def client_key() -> str | None:
    """The key that the commands show to a server: MIEN_KEY, which is no setting of a server."""
    return os.environ.get(_CLIENT_KEY) or None


def client_url() -> str | None:
    """The server that the commands ask without --url: MIEN_URL, which is no setting of a server."""
    return os.environ.get(_CLIENT_URL) or None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Variables that look like settings but are none: most often a slip of the pen."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {_CLIENT_KEY, _CLIENT_URL}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
