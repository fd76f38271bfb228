"""The S3 client: one for each process, with retries, and errors like those of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from stedi.errors import needing

ATTEMPTS = 8
"""How often a call is made at most, the first one counted."""
BESIDE = 8
"""Transfers side by side."""


@cache
def client() -> Any:
    """Returns the S3 client of this process; region, keys and endpoint are configured as for every AWS tool.

    Raises:
        MissingExtra: boto3 is not installed.
    """
    with needing("boto3", "aws", "s3://"):
        import boto3
        from botocore.config import Config
    # an emulator on an address, not a name, cannot have a bucket in front of it
    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            connect_timeout=10,
            read_timeout=60,
            # as many requests as `objects.each` makes at once
            max_pool_connections=2 * BESIDE,
            s3={"addressing_style": "path" if own else "auto"},
        ),
    )


def steady(other: Any) -> Any:
    """Makes the client of a JSON service repeat requests whose answer broke off, and returns it.

    botocore takes half of such a text for an empty answer.
    """

    def again(response: tuple[Any, Any] | None, attempts: int, **_: Any) -> float | None:
        answer = response[0] if response else None
        if answer is None or attempts >= ATTEMPTS:
            return None
        told = answer.headers.get("Content-Length")
        return pause(attempts) if told is not None and int(told) != len(answer.content) else None

    event = f"needs-retry.{other.meta.service_model.service_id.hyphenize()}"
    other.meta.events.register_last(event, again, unique_id="stedi")
    return other


def error_code(error: BaseException | None) -> str:
    """Returns the code by which AWS refused, of an error of boto's; nothing of another."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


@contextmanager
def answers(path: object) -> Iterator[None]:
    """Turns refusals of S3 into the errors that files raise; messages contain only the object and the reason."""
    client()  # raises if there is none
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except ClientError as error:
        code = error_code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status == 404 or code in ("404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NoSuchUpload"):
            what = "bucket" if code == "NoSuchBucket" else "object"
            raise FileNotFoundError(2, f"no such {what} in S3", str(path)) from error
        if status == 403:
            raise PermissionError(13, f"S3 refused {error.operation_name} ({code})", str(path)) from error
        if status == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise FileExistsError(17, "another program has written it", str(path)) from error
        raise OSError(5, f"S3 failed at {error.operation_name} ({code or status})", str(path)) from error
    except NoCredentialsError as error:
        raise PermissionError(13, "no AWS credentials are found: set AWS_PROFILE, or sign in", str(path)) from error
    except (BotoCoreError, Boto3Error, RetriesExceededError) as error:
        raise OSError(5, f"S3 cannot be reached ({type(error).__name__})", str(path)) from error


def pause(attempt: int) -> float:
    """Returns the seconds to wait after an attempt, the first one being number 0."""
    return float(min(2.0, 0.1 * 2**attempt))
