"""The sockets that worker processes listen on."""

import asyncio
import socket

import uvicorn

from service.server import _bound


def test_what_a_worker_accepts_sends_at_once() -> None:
    """By TCP_NODELAY, as asyncio sets it where it makes the socket itself, for one process."""
    config = uvicorn.Config("service.app:app_from_environment", port=0, log_config=None)
    with _bound(config) as listening:
        assert listening.get_inheritable()
        assert (listening.proto, asyncio.run(no_delay(listening))) == (socket.IPPROTO_TCP, True)


async def no_delay(listening: socket.socket) -> bool:
    """True if asyncio has what it accepts there send at once."""
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        option = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        told.set_result(option)
        writer.close()

    async with await asyncio.start_server(accepted, sock=listening.dup()):
        _, writer = await asyncio.open_connection(*listening.getsockname())
        option = await told
        writer.close()
        await writer.wait_closed()
    return bool(option)
