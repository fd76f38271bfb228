"""Makes requests to local servers cheaper: tests send tens of thousands, each of which takes milliseconds of a core.

Much of that goes into a parser for mail, which reads the headers of answers, into one for dates of any form, and into
clients that each read their service's model again.
"""

from __future__ import annotations

import email.parser
import http.client
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPMessage
from typing import Any, BinaryIO


@contextmanager
def cheap() -> Iterator[None]:
    """Makes requests of this process cheaper within a block."""
    import pytest
    from botocore import parsers, useragent

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http.client, "parse_headers", headers)
        patch.setattr(parsers, "DEFAULT_TIMESTAMP_PARSER", time(parsers.DEFAULT_TIMESTAMP_PARSER))
        patch.setattr(useragent.UserAgentString, "to_string", lambda self: "tests")
        yield


@contextmanager
def few_clients() -> Iterator[None]:
    """Makes one client for equal arguments in an equal environment, within a block."""
    import boto3
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boto3, "client", kept(boto3.client))
        yield


def warm() -> None:
    """Makes requests cheaper in the forks of this process, whose clients find their services' models read."""
    import boto3

    cheap().__enter__()
    for service in ("s3", "glue"):
        boto3.client(service, region_name="eu-central-1", aws_access_key_id="nobody's", aws_secret_access_key="none")


@cache
def _loader() -> Any:
    from botocore.loaders import create_loader

    return create_loader()


def session() -> Any:
    """Returns a session that knows no keys yet, and reads no service's model that another such session has read."""
    import boto3
    from botocore.session import get_session

    found = get_session()
    found.register_component("data_loader", _loader())
    return boto3.Session(botocore_session=found)


def headers(stream: BinaryIO, _class: type[HTTPMessage] = HTTPMessage) -> HTTPMessage:
    """Reads headers; takes the parser for mail if one has several lines."""
    lines = [line.decode("iso-8859-1") for line in http.client._read_headers(stream)]  # type: ignore[attr-defined]
    parts = [line.partition(":") for line in lines[:-1]]
    if any(not colon or name[0] in " \t" for name, colon, _ in parts):
        return email.parser.Parser(_class=_class).parsestr("".join(lines))
    found = _class()
    found._headers = [(name, value.strip()) for name, _, value in parts]  # type: ignore[attr-defined]
    return found


def time(otherwise: Callable[[Any], datetime]) -> Callable[[Any], datetime]:
    """Returns a parser of the times that S3 and Glue send, which takes another for any other form."""

    def parse(value: Any) -> datetime:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        try:
            return parsedate_to_datetime(value) if value.endswith("GMT") else datetime.fromisoformat(value)
        except ValueError:
            return otherwise(value)

    return parse


_clients: dict[object, Any] = {}


def kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that makes one client for equal arguments in an equal environment."""

    def client(service: str, **options: Any) -> Any:
        reached = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
        config = options.get("config")
        told = {**options, "config": config and config._user_provided_options}
        key = (service, repr(sorted(told.items(), key=str)), reached)
        if key not in _clients:
            _clients[key] = make(service, **options)
        return _clients[key]

    return client
