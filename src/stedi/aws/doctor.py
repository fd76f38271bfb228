"""Checks of the AWS permissions that a lake needs: credentials, bucket, Glue database, workgroups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stedi.aws.account import answering, client
from stedi.errors import CloudFailed, MissingExtra
from stedi.operations.doctor import Finding
from stedi.schema.roles import GRANTS
from stedi.schema.tables import NAMESPACE
from stedi.storage import s3


def examine(lake: str) -> Iterator[Finding]:
    """Checks the AWS account that this process uses and yields a finding for each check; it changes nothing.

    Args:
        lake: The lake's location; if it is in a bucket, access to the bucket is checked, too.
    """
    try:
        with answering("credentials"):
            found = client("sts").get_caller_identity()
    except MissingExtra as error:
        yield Finding("aws", "wrong", "boto3 is not installed", str(error).rpartition(": ")[2])
        return
    except CloudFailed as error:
        yield Finding(
            "credentials",
            "wrong",
            str(error).removeprefix("credentials: "),
            "run `aws configure`, or set AWS_PROFILE and AWS_REGION",
        )
        return
    yield Finding("credentials", "ok", f"{found['Arn']}, region {client('sts').meta.region_name}")
    if s3.is_remote(lake):
        bucket, _, prefix = str(lake).removeprefix("s3://").partition("/")
        yield _asked(
            f"bucket {bucket}",
            lambda: client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1),
            f"allow s3:ListBucket, s3:GetObject and s3:PutObject on s3://{bucket}/{prefix}",
        )
    yield _asked(
        f"Glue database {NAMESPACE}",
        lambda: client("glue").get_database(Name=NAMESPACE),
        "run `stedi aws deploy`, or allow glue:GetDatabase",
    )
    for role in GRANTS:
        group = f"stedi-{role}"
        yield _asked(
            f"workgroup {group}",
            lambda group=group: client("athena").get_work_group(WorkGroup=group),
            "run `stedi aws deploy`, or allow athena:GetWorkGroup",
        )


def _asked(name: str, ask: Any, advice: str) -> Finding:
    try:
        with answering(name):
            ask()
    except CloudFailed as error:
        return Finding(name, "wrong", str(error).removeprefix(f"{name}: "), advice)
    return Finding(name, "ok", "there, and may be read")
