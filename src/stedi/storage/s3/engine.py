"""Access to S3 for DuckDB."""

from __future__ import annotations

import os
from pathlib import Path

from stedi.errors import LakeError, MissingExtra
from stedi.storage.s3.connection import ATTEMPTS, client


def engine_settings() -> dict[str, str]:
    """Returns what DuckDB's S3 secret needs, from where boto3 finds it: region, keys, endpoint."""
    from urllib.parse import urlsplit

    import boto3

    made = client()
    # the session of `client`: one of its own would read boto's files anew
    found = (boto3.DEFAULT_SESSION or boto3.Session()).get_credentials()
    if found is None:
        raise LakeError("s3://: expected AWS credentials, found none; configure them as for any AWS tool")
    keys = found.get_frozen_credentials()
    settings = {"key_id": keys.access_key, "secret": keys.secret_key, "region": made.meta.region_name or "us-east-1"}
    if keys.token:
        settings["session_token"] = keys.token
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        url = urlsplit(made.meta.endpoint_url)
        settings |= {"endpoint": url.netloc, "url_style": "path", "use_ssl": str(url.scheme == "https").lower()}
    return settings


def engine_statements() -> list[str]:
    """Returns the statements that let a DuckDB session read objects of S3 and repeat throttled requests."""

    def text(value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    settings = ", ".join(f"{name} {text(value)}" for name, value in engine_settings().items())
    return [
        f"load {text(extension())}",
        f"create or replace secret (type s3, {settings})",
        f"set http_retries = {ATTEMPTS}",
        "set http_retry_backoff = 2",  # 4 would make the last pause half an hour
        "set http_timeout = 60",
        # objects are never rewritten under their name, so cached metadata stay valid
        "set enable_http_metadata_cache = true",
    ]


def extension() -> str:
    """Returns the file of DuckDB's httpfs extension.

    Raises:
        MissingExtra: It is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("duckdb_extension_httpfs")
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    for place in places:
        for path in sorted(Path(place).glob("extensions/*/httpfs.duckdb_extension")):
            return str(path)
    raise MissingExtra("s3:// needs DuckDB's httpfs extension, which is not installed: pip install 'stedi[aws]'")
