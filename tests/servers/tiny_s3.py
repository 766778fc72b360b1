"""A server that answers like S3, in memory, and says no, is late or forgets conditions when a test wants it to."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

__all__ = ["TinyS3", "tiny_s3"]

Answer = tuple[int, str]
"""Status and code of an error."""


class TinyS3:
    """One bucket, `tiny`.

    Attributes:
        objects: by key.
        ignores: headers of conditions that it does not look at.
        behave: is given method and key of each request, and gives an error to answer; "cut", to do it and say nothing;
            "late", to say nothing and do it when `let_land` is called; or None, to do it.
        ahead: seconds by which its clock is ahead.
        asked: method and key of all requests.
    """

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.ignores: set[str] = set()
        self.behave: Callable[[str, str], Answer | str | None] = lambda method, key: None
        self.ahead = 0.0
        self.asked: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self._late: list[Callable[[], Any]] = []
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.tiny = self
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def open(self, **options: Any) -> Any:
        """The bucket, as obstore has it."""
        from obstore.store import S3Store

        return S3Store(
            "tiny",
            endpoint=self.endpoint,
            access_key_id="AKTINY",
            secret_access_key="SKTINY",
            region="us-east-1",
            virtual_hosted_style_request=False,
            retry_config={"max_retries": 0},
            client_options={"allow_http": True, "timeout": "5s"},
            **options,
        )

    def environment(self) -> dict[str, str]:
        """What a program needs to find it."""
        keys = {"AWS_ACCESS_KEY_ID": "AKTINY", "AWS_SECRET_ACCESS_KEY": "SKTINY"}
        return {**keys, "AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1"}

    def let_land(self) -> list[Any]:
        """Do what was kept back; what the server would have answered."""
        late, self._late = self._late, []
        return [do() for do in late]

    def keep_back(self, do: Callable[[], Any]) -> None:
        """Do it later."""
        self._late.append(do)

    def put(self, key: str, data: bytes, condition: str | None, tag: str | None) -> Answer | str:
        """Keep an object, if the conditions hold: its tag, or an error."""
        with self.lock:
            there = self.objects.get(key)
            if condition and "if-none-match" not in self.ignores and there is not None:
                return 412, "PreconditionFailed"
            if tag and "if-match" not in self.ignores and (there is None or _tag(there[0]) != tag):
                return (412, "PreconditionFailed") if there is not None else (404, "NoSuchKey")
            self.objects[key] = data, time.time() + self.ahead
            return _tag(data)


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tiny: TinyS3


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # no delay

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        data = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n" % (status, len(body))
        data += b"".join(f"{name.replace('_', '-')}: {value}\r\n".encode() for name, value in headers.items())
        self.wfile.write(data + b"\r\n" + (b"" if self.command == "HEAD" else body))

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    def _go(self) -> None:
        parts = urlsplit(self.path)
        key = unquote(parts.path).removeprefix("/tiny").lstrip("/")
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.server.tiny.lock:
            self.server.tiny.asked.append((self.command, key))
        wanted = self.server.tiny.behave(self.command, key)
        if isinstance(wanted, tuple):
            self._error(*wanted)
            return
        if wanted in ("cut", "late"):
            conditions = self.headers.get("if-none-match"), self.headers.get("if-match")
            if wanted == "cut":
                self.server.tiny.put(key, body, *conditions)
            else:
                self.server.tiny.keep_back(lambda: self.server.tiny.put(key, body, *conditions))
            self.close_connection = True
            self.connection.close()
            return
        getattr(self, f"_{self.command.lower()}")(key, body, parse_qs(parts.query))

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _go

    def _put(self, key: str, body: bytes, query: Any) -> None:
        done = self.server.tiny.put(key, body, self.headers.get("if-none-match"), self.headers.get("if-match"))
        self._error(*done) if isinstance(done, tuple) else self._answer(200, ETag=done)

    def _get(self, key: str, body: bytes, query: dict[str, list[str]]) -> None:
        if not key:
            self._list(query)
            return
        with self.server.tiny.lock:
            found = self.server.tiny.objects.get(key)
        if found is None:
            self._error(404, "NoSuchKey")
            return
        when = formatdate(found[1], usegmt=True)
        self._answer(200, found[0], ETag=_tag(found[0]), Last_Modified=when)

    _head = _get

    def _delete(self, key: str, body: bytes, query: Any) -> None:
        with self.server.tiny.lock:
            self.server.tiny.objects.pop(key, None)
        self._answer(204)

    def _post(self, key: str, body: bytes, query: Any) -> None:
        names = [el.text or "" for el in ET.fromstring(body).iter() if el.tag.endswith("Key")]
        with self.server.tiny.lock:
            for name in names:
                self.server.tiny.objects.pop(name, None)
        rows = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
        self._answer(200, f"<DeleteResult>{rows}</DeleteResult>".encode())

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        with self.server.tiny.lock:
            found = sorted((k, v) for k, v in self.server.tiny.objects.items() if k.startswith(prefix) and k > after)
        page = found[: int(query.get("max-keys", ["1000"])[0])]
        more = len(found) > len(page)
        rows = "".join(
            f"<Contents><Key>{escape(k)}</Key><Size>{len(v)}</Size><ETag>{escape(_tag(v))}</ETag>"
            f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(w))}</LastModified></Contents>"
            for k, (v, w) in page
        )
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        text = f"<ListBucketResult>{rows}{token}<IsTruncated>{str(more).lower()}</IsTruncated></ListBucketResult>"
        self._answer(200, text.encode())


@contextlib.contextmanager
def tiny_s3() -> Iterator[TinyS3]:
    """Start one."""
    tiny = TinyS3()
    try:
        yield tiny
    finally:
        tiny.server.shutdown()
        tiny.server.server_close()
