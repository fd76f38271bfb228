"""Objects of S3 as paths: they read like files; leases take the place of locks.

A lake in a bucket has the layout of one in a folder, so the rest of the program works with paths and need not know
which it has; `durable` knows. An object is whole or absent, and on disk when its write returns, so a write needs no
name of its own. What a bucket lacks is made here: a lock is an object that only one writer can create.

Calls that are throttled or time out are repeated with growing pauses, a bounded number of times (botocore's mode
`standard`). What a call did is read from its answer or asked for; it is never taken for granted.
"""

from __future__ import annotations

from stedi.storage.s3.connection import client, error_code, steady
from stedi.storage.s3.engine import engine_settings, engine_statements, extension
from stedi.storage.s3.leases import Heartbeat, Lease, discard, is_held, lock, prove, replace
from stedi.storage.s3.objects import (
    SUM,
    Object,
    content,
    create,
    digest,
    download,
    each,
    exchange,
    listing,
    recorded,
    remove,
    remove_tree,
    remove_versions,
    start,
    upload,
    write,
)
from stedi.storage.s3.paths import SCHEME, S3Path, at, is_outage, is_remote

__all__ = [
    "SCHEME",
    "SUM",
    "Heartbeat",
    "Lease",
    "Object",
    "S3Path",
    "at",
    "client",
    "content",
    "create",
    "digest",
    "discard",
    "download",
    "each",
    "engine_settings",
    "engine_statements",
    "error_code",
    "exchange",
    "extension",
    "is_held",
    "is_outage",
    "is_remote",
    "listing",
    "lock",
    "prove",
    "recorded",
    "remove",
    "remove_tree",
    "remove_versions",
    "replace",
    "start",
    "steady",
    "upload",
    "write",
]
