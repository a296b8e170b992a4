"""An S3 server on loopback: the one of the package moto, or another that runs already.

`S3_TEST_URL` is the address of another one, for which AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION are set.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import boto3
import pytest
from moto.server import ThreadedMotoServer


class S3Server:
    """Runs within the context, in which the variables of the AWS tools lead to it; `own`: always one that can stop."""

    def __init__(self, *, own: bool = False) -> None:
        self.url = "" if own else os.environ.get("S3_TEST_URL", "")
        self._server = None if self.url else ThreadedMotoServer("127.0.0.1", 0, verbose=False)

    def __enter__(self) -> Self:
        self._patch = pytest.MonkeyPatch()
        if self._server:
            self._server.start()
            host, port = self._server.get_host_and_port()
            self.url = f"http://{host}:{port}"
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
        if self._server:
            self._server.stop()

    def bucket(self, name: str) -> str:
        """The address of a place in a new bucket."""
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1")
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}/headrace"
