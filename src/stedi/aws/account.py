"""The AWS account that this process uses: clients, and AWS errors as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from stedi.errors import CloudFailed, needing
from stedi.storage import s3


@cache
def client(service: str) -> Any:
    """Returns the client of a service; it retries throttled requests a limited number of times.

    Raises:
        MissingExtra: boto3 is not installed.
        CloudFailed: No region is configured.
    """
    with needing("boto3", "aws", "AWS"):
        import boto3
        from botocore.config import Config
    with answering(service):
        return boto3.client(service, config=Config(retries={"mode": "standard", "max_attempts": 8}))


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Turns an error from AWS, or a failure to reach it, into one line.

    Args:
        what: What was requested; the message begins with it.

    Raises:
        CloudFailed: AWS refused the request or did not answer.
    """
    with needing("boto3", "aws", "AWS"):
        from botocore.exceptions import BotoCoreError, ClientError
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        raise CloudFailed(f"{what}: AWS answered {said.get('Code', 'an error')}: {said.get('Message', '')}") from error
    except BotoCoreError as error:
        raise CloudFailed(f"{what}: expected an answer from AWS, found: {error}") from error


def code(error: BaseException | None) -> str:
    """Returns the AWS error code of an error that `answering` has raised, or an empty text."""
    return s3.error_code(error and error.__cause__)
