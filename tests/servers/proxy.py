"""A TCP proxy that breaks connections: cut after so many bytes, keep back what is sent, or say nothing any more."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Literal

__all__ = ["Link", "Proxy", "proxy"]

Way = Literal["up", "down"]
"""From the client to the server, and back."""


class Link:
    """One connection through the proxy; ended by `cut`, in both directions and with a reset."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client, self._server = client, server
        self._lock = threading.Lock()
        self.bytes: dict[Way, int] = {"up": 0, "down": 0}
        self.open = True

    def cut(self, *, client: bool = True, server: bool = True) -> None:
        """End it; with one of the two False, that side does not learn of it."""
        with self._lock:
            self.open = False
        for wanted, side in ((client, self._client), (server, self._server)):
            if wanted:
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    side.shutdown(socket.SHUT_RDWR)
                side.close()

    def send(self, way: Way, data: bytes) -> None:
        """Hand bytes on."""
        self.bytes[way] += len(data)
        (self._server if way == "up" else self._client).sendall(data)

    def side(self, way: Way) -> socket.socket:
        """Where bytes that go this way come from."""
        return self._client if way == "up" else self._server


class Proxy:
    """Listens on loopback, and hands on to a server what it is sent.

    Attributes:
        port: where clients connect.
        on_bytes: decides about each chunk: is given the link, its way and the bytes, and hands on what it wants with
            `link.send`; None hands on everything. It runs in the thread of that way.
        refusing: new connections are closed at once.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.on_bytes: Callable[[Link, Way, bytes], None] | None = None
        self.refusing = False
        self.links: list[Link] = []
        threading.Thread(target=self._accept, daemon=True, name="proxy").start()

    def cut_after(self, way: Way, count: int) -> threading.Event:
        """Cut the link that is the first to carry `count` more bytes this way, after just those; set when done."""
        done, left, lock = threading.Event(), count, threading.Lock()

        def decide(link: Link, going: Way, data: bytes) -> None:
            nonlocal left
            with lock:
                if going != way or done.is_set():
                    kept, now = data, False
                else:
                    kept, now = data[:left], len(data) >= left
                    left -= len(kept)
                    if now:
                        done.set()
            if kept:
                link.send(going, kept)
            if now:
                link.cut()

        self.on_bytes = decide
        return done

    def blackhole(self) -> None:
        """Swallow everything from now on, without a word."""
        self.on_bytes = lambda link, way, data: None

    def heal(self) -> None:
        """Hand everything on again, on links that are still open."""
        self.on_bytes, self.refusing = None, False

    def cut_all(self) -> None:
        """Cut every link that is open."""
        for link in list(self.links):
            link.cut()

    def close(self) -> None:
        """End it, and all that goes through it."""
        self.refusing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.refusing:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            self.links = [known for known in self.links if known.open] + [link]
            ways: tuple[Way, Way] = ("up", "down")
            for way in ways:
                threading.Thread(target=self._carry, args=(link, way), daemon=True, name=f"proxy-{way}").start()

    def _carry(self, link: Link, way: Way) -> None:
        side = link.side(way)
        while True:
            try:
                data = side.recv(65536)
                if not data:
                    break
                decide = self.on_bytes
                if decide is None:
                    link.send(way, data)
                else:
                    decide(link, way, data)
            except OSError:
                break
        if link.open:
            link.cut()


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy before a port of the loopback interface."""
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()
