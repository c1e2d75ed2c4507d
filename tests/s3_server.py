"""A server of the S3 protocol on this machine, for tests: moto's, in this process, on a free port of loopback."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


class S3Server:
    """A server that can be away for a while: its buckets live on in this process."""

    def __init__(self) -> None:
        self.port = 0
        self._server: Any = None

    def start(self) -> None:
        """Begin to answer; on the same port as before."""
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.url}

    def make_bucket(self, name: str) -> str:
        """A bucket; gives its address."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def age(self, bucket: str, key: str, seconds: float) -> None:
        """Have an object's last change be that long ago: S3 itself has no way to say so."""
        from moto.s3.models import s3_backends

        for account in s3_backends.values():
            with contextlib.suppress(KeyError):
                found = account["aws"].buckets[bucket].keys[key]
                found.last_modified = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server that runs, and this process's environment as its clients need it."""
    from s3fs import S3FileSystem

    server = S3Server()
    server.start()
    S3FileSystem.clear_instance_cache()  # one that is kept goes by the server of other tests
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.stop()
        S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
