"""An S3 server of our own, on loopback: the one of the package moto."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx2
import pytest
from moto.server import ThreadedMotoServer


class S3Server:
    """Runs within the context, in which the variables of the AWS tools lead to it."""

    def __enter__(self) -> Self:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self._patch = pytest.MonkeyPatch()
        self._patch.setenv("AWS_ACCESS_KEY_ID", "key")
        self._patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        self._patch.setenv("AWS_REGION", "us-east-1")
        self._patch.setenv("AWS_ENDPOINT_URL", self.url)
        self._patch.setenv("AWS_ALLOW_HTTP", "true")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patch.undo()
        self.stop()

    def stop(self) -> None:
        self._server.stop()

    def bucket(self, name: str) -> str:
        """The address of a place in a new bucket."""
        httpx2.put(f"{self.url}/{name}").raise_for_status()
        return f"s3://{name}/headrace"
