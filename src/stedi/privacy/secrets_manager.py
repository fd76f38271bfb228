"""The pseudonym key in AWS Secrets Manager: `secretsmanager:NAME` or `secretsmanager:ARN` instead of a file.

The secret's text is that of a key's file: hex digits, and after the key, each on a line, those that it has followed.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from stedi.errors import KeyRefused, needing
from stedi.privacy.pseudonyms import Key, parsed
from stedi.storage import s3

SCHEME = "secretsmanager:"


def names(place: str) -> bool:
    """Returns whether a key's place is a secret."""
    return place.startswith(SCHEME)


def read(place: str) -> Key:
    """Returns the key in a secret.

    Raises:
        KeyRefused: There is no such secret, it may not be read, or it does not contain a key.
    """
    client, name = _client(), place.removeprefix(SCHEME)
    try:
        found = client.get_secret_value(SecretId=name)
    except Exception as error:
        raise _refused(place, error) from error
    # a binary secret has no `SecretString`: it is refused as no key
    return parsed(found.get("SecretString", ""), place)


def make(place: str, earlier: tuple[Key, ...] = ()) -> Key:
    """Makes a new key and its secret: a line for it, then one for each that it follows.

    Raises:
        KeyRefused: The secret exists or cannot be made.
    """
    client, name = _client(), place.removeprefix(SCHEME)
    key = Key(os.urandom(32), earlier)
    text = "".join(f"{each.secret.hex()}\n" for each in key.every())
    try:
        # refused by AWS if the name exists: of two commands that make a key at once, one fails
        client.create_secret(Name=name, SecretString=text, Description="The pseudonym key of a STEDI lake")
    except Exception as error:
        raise _refused(place, error) from error
    return key


def exists(place: str) -> bool:
    """Returns whether there is such a secret.

    Raises:
        KeyRefused: It cannot be determined.
    """
    client = _client()
    try:
        client.describe_secret(SecretId=place.removeprefix(SCHEME))
    except client.exceptions.ResourceNotFoundException:
        return False
    except Exception as error:
        raise _refused(place, error) from error
    return True


@cache
def _client() -> Any:
    with needing("boto3", "aws", SCHEME):
        import boto3
        from botocore.config import Config
    return s3.steady(boto3.client("secretsmanager", config=Config(retries={"mode": "standard", "max_attempts": 8})))


def _refused(place: str, error: Exception) -> KeyRefused:
    code = s3.error_code(error)
    return KeyRefused(
        f"pseudonym key {place}: expected an answer from Secrets Manager, found {code or type(error).__name__}; "
        "nothing was read or written: check that the secret exists and that you have access to it"
    )
