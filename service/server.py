"""The process: what is checked before the start, uvicorn, its listening socket and its workers."""

import errno
import socket
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvicorn

from service.app import create_app, load_models, open_store, require_gate
from service.cgroup import bounds
from service.connections import BACKLOG, Connection, raise_file_limit, require_connections
from service.drain import IN_FLIGHT_S
from service.errors import SettingsError
from service.observe import logs
from service.observe.logs import log
from service.observe.watch import open_watch
from service.settings import Settings, hand_down, unknown_variables
from service.workers import Supervisor

# A worker process that does not answer its parent for so long is killed and begun anew. It answers
# once its modules are imported: with uvicorn's own five seconds a busy machine would kill each
# worker as it starts, for ever.
_WORKER_ANSWERS_S: Final = 60


def serve(settings: Settings, *, new_gallery: bool = False) -> None:
    """Serve until told to stop.

    new_gallery: begin an empty gallery even where the one that was there is lost.

    Raises what is wrong with settings, models, store or device first, and SystemExit with a status
    that is not 0 if the service ends because of a fault.
    """
    logs.configure(settings.log)
    for name in unknown_variables():
        log.warning("no setting of Mien", variable=name)
    limit = bounds().memory_bytes
    if limit is not None and settings.worst_case_bytes > limit:
        worst = settings.worst_case_bytes
        log.warning("memory limit below worst case", worst_case_bytes=worst, limit_bytes=limit)
    open_watch(settings.collector, version=version("mien")).close()
    raise_file_limit()
    require_connections(settings.max_connections)
    require_gate(settings)
    _require_port(settings)
    load_models(settings)
    open_store(settings, new=new_gallery).close()
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": Connection,
        "ws": "none",
        "backlog": BACKLOG,
        "server_header": False,
        "timeout_graceful_shutdown": IN_FLIGHT_S,
        "log_config": None,
        "access_log": False,  # the log has a line a request of our own
    }
    if settings.workers == 1:
        uvicorn.run(create_app(settings, served=True), **options)
        return
    with TemporaryDirectory(prefix="mien-metrics-") as name:
        folder = Path(name)
        hand_down(settings, folder)
        config = uvicorn.Config(
            "service.app:app_from_environment",
            factory=True,
            workers=settings.workers,
            timeout_worker_healthcheck=_WORKER_ANSWERS_S,  # of one that SIGHUP begins
            **options,
        )
        Supervisor(config, [_bound(config)], folder=folder, answers_s=_WORKER_ANSWERS_S).run()


def _bound(config: uvicorn.Config) -> socket.socket:
    """A socket bound to the address of the configuration, for workers to listen on.

    Its protocol is read from the system: uvicorn makes it with 0 for "the usual one", and asyncio
    sets TCP_NODELAY on what it accepts only if the listening socket says TCP. Without it, Nagle's
    algorithm and delayed acknowledgments hold each answer on a kept-alive connection for 40 ms.
    """
    return socket.socket(fileno=config.bind_socket().detach())


def _require_port(settings: Settings) -> None:
    """Raise SettingsError if the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        of_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        variable = "MIEN_PORT" if of_port else "MIEN_HOST"
        raise SettingsError(variable, error.strerror or str(error)) from error
