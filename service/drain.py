"""Stopping without breaking anybody's call off: SIGTERM drains.

At the signal /readyz and new calls say at once that the service is draining, and calls that were
let in before go on. A moment later, in which a load balancer can ask and look elsewhere, the server
closes its port and its idle connections, waits for the calls in flight, and ends. Who dawdles is
not waited for beyond `END_S`: what was acknowledged is on disk, so the end may come at any moment.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

DRAINING: Final = "it is draining: it answers the calls it has, and ends"
LINGER_S: Final = 1.0  # the port stays open, and what comes is told to go elsewhere
IN_FLIGHT_S: Final = 5  # for calls in flight, from when the port is closed
END_S: Final = 7.5  # from the signal to the end, whatever is still going on; ten are promised


def drain_on_sigterm(begin: Callable[[], None]) -> None:
    """Has SIGTERM call `begin`, and LINGER_S later the server's own handler.

    To be called in the event loop of a server that handles the signal; where nobody does, as in a
    command that runs the application for itself, nothing changes. A second SIGTERM does not linger.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop):
        return
    loop = asyncio.get_running_loop()

    def close() -> None:
        stop(signal.SIGTERM, None)

    def drain() -> None:
        begin()
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, stop)
        loop.call_later(LINGER_S, close)
        end = threading.Timer(END_S, os._exit, (1,))
        end.daemon = True
        end.start()

    loop.add_signal_handler(signal.SIGTERM, drain)


def end_with_parent() -> None:
    """Have this worker process drain and end if its parent dies, killed or crashed.

    Else it would serve on, unsupervised, and keep the port and the store from the next service.
    Nothing happens in a process that is nobody's worker.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        end = threading.Timer(END_S + LINGER_S, os._exit, (1,))  # if the event loop hangs
        end.daemon = True
        end.start()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
