"""An object store on this machine, in this process."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest

SECRET = "hush4711hush4711"
KEY_ID = "AKIDKNOWN4711"
BUCKET = "s3://bucket"


@contextlib.contextmanager
def object_server() -> Iterator[str]:
    """Serves an empty bucket; the environment leads to it and has its credentials."""
    pytest.importorskip("s3fs")
    with warnings.catch_warnings(action="ignore"):  # those of the server's imports
        server_module = pytest.importorskip("moto.server")
    from s3fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # of others
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        S3FileSystem.clear_instance_cache()  # clients of other servers
        S3FileSystem().mkdir("bucket")
        try:
            yield BUCKET
        finally:
            S3FileSystem.clear_instance_cache()
            server.stop()
