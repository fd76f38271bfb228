"""Runs moto with support for those resources of the stack that its CloudFormation lacks.

Run as `python moto_cloud.py HOST PORT`. Each such resource is created by the matching call of the service's own API,
and botocore checks its properties against that API. Resources that moto's services cannot create either are listed in
`UNKNOWN`.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any, cast

import boto3
from moto.core.common_models import CloudFormationModel

UNKNOWN: dict[str, str] = {
    "AWS::S3::BucketPolicy": "moto's S3 applies a policy without its conditions: refusing plain HTTP it refuses all",
    "AWS::SNS::TopicPolicy": "moto's set_topic_attributes checks no policy",
}
"""Types that are listed as resources of the stack but create nothing in moto, with the reason."""


@cache
def client(service: str, region: str) -> Any:
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=f"http://{sys.argv[1]}:{sys.argv[2]}",
        aws_access_key_id="moto",
        aws_secret_access_key="moto",
    )


def fitted(shape: Any, value: Any) -> Any:
    """Converts a template's value for an API: text to numbers. An unknown name raises an error."""
    match shape.type_name:
        case "structure":
            return {name: fitted(shape.members[name], inner) for name, inner in value.items()}
        case "list":
            return [fitted(shape.member, inner) for inner in value]
        case "map":
            return {name: fitted(shape.value, inner) for name, inner in value.items()}
        case "integer" | "long":
            return int(value)
        case "double" | "float":
            return float(value)
        case "boolean":
            return value if isinstance(value, bool) else str(value).lower() == "true"
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict) else str(value)


def call(service: str, region: str, operation: str, **arguments: Any) -> Any:
    found = client(service, region)
    shape = found.meta.service_model.operation_model(found.meta.method_to_api_mapping[operation]).input_shape
    return getattr(found, operation)(**fitted(shape, arguments))


def secret(region: str, given: dict[str, Any]) -> str:
    text = call("secretsmanager", region, "get_random_password", **given.pop("GenerateSecretString"))["RandomPassword"]
    return str(call("secretsmanager", region, "create_secret", SecretString=text, **given)["ARN"])


def database(region: str, given: dict[str, Any]) -> str:
    call("glue", region, "create_database", **given)
    return str(given["DatabaseInput"]["Name"])


def table(region: str, given: dict[str, Any]) -> str:
    call("glue", region, "create_table", **given)
    return str(given["TableInput"]["Name"])


def job(region: str, given: dict[str, Any]) -> str:
    call("glue", region, "create_job", **given)
    return str(given["Name"])


def security(region: str, given: dict[str, Any]) -> str:
    encryption = given["EncryptionConfiguration"]
    encryption["S3Encryption"] = encryption.pop("S3Encryptions")
    call("glue", region, "create_security_configuration", Name=given["Name"], EncryptionConfiguration=encryption)
    return str(given["Name"])


def workflow(region: str, given: dict[str, Any]) -> str:
    call("glue", region, "create_workflow", **given)
    return str(given["Name"])


def trigger(region: str, given: dict[str, Any]) -> str:
    call("glue", region, "create_trigger", **given)
    return str(given["Name"])


def crawler(region: str, given: dict[str, Any]) -> str:
    given["Schedule"] = given["Schedule"]["ScheduleExpression"]
    call("glue", region, "create_crawler", **given)
    return str(given["Name"])


def workgroup(region: str, given: dict[str, Any]) -> str:
    given.pop("RecursiveDeleteOption")
    configuration = given.pop("WorkGroupConfiguration")
    call("athena", region, "create_work_group", Configuration=configuration, **given)
    return str(given["Name"])


def named_query(region: str, given: dict[str, Any]) -> str:
    return str(call("athena", region, "create_named_query", **given)["NamedQueryId"])


def alarm(region: str, given: dict[str, Any]) -> str:
    call("cloudwatch", region, "put_metric_alarm", AlarmName="stale", **given)
    return "stale"


def subscription(region: str, given: dict[str, Any]) -> str:
    return str(call("sns", region, "subscribe", **given)["SubscriptionArn"])


def nothing(region: str, given: dict[str, Any]) -> str:
    return "nothing"


MAKERS: dict[str, tuple[Any, str, str, str]] = {
    "AWS::SecretsManager::Secret": (secret, "secretsmanager", "delete_secret", "SecretId"),
    "AWS::Glue::Database": (database, "glue", "delete_database", "Name"),
    "AWS::Glue::Table": (table, "glue", "", ""),  # is removed with its database
    "AWS::Glue::Job": (job, "glue", "delete_job", "JobName"),
    "AWS::Glue::SecurityConfiguration": (security, "glue", "delete_security_configuration", "Name"),
    "AWS::Glue::Workflow": (workflow, "glue", "delete_workflow", "Name"),
    "AWS::Glue::Trigger": (trigger, "glue", "delete_trigger", "Name"),
    "AWS::Glue::Crawler": (crawler, "glue", "delete_crawler", "Name"),
    "AWS::Athena::WorkGroup": (workgroup, "athena", "delete_work_group", "WorkGroup"),
    "AWS::Athena::NamedQuery": (named_query, "athena", "", ""),
    "AWS::CloudWatch::Alarm": (alarm, "cloudwatch", "", ""),
    "AWS::SNS::Subscription": (subscription, "sns", "", ""),
    **dict.fromkeys(UNKNOWN, (nothing, "", "", "")),
}


class Made(CloudFormationModel):
    """A resource created by a maker."""

    __module__ = "moto.taught.models"  # moto derives the service's name from this

    def __init__(self, identity: str) -> None:
        self.identity = identity

    @property
    def physical_resource_id(self) -> str:
        return self.identity

    def is_created(self) -> bool:
        return True


def model(kind: str) -> type[CloudFormationModel]:
    maker, service, deletes, key = MAKERS[kind]

    def create(cls: type[Any], name: str, document: dict[str, Any], account: str, region: str, **_: Any) -> Any:
        found = cls(maker(region, json.loads(json.dumps(document["Properties"]))))
        found.type = kind
        return found

    def update(
        cls: type[Any], *, original_resource: Any, cloudformation_json: dict[str, Any], region_name: str, **_: Any
    ) -> Any:
        delete(cls, original_resource.identity, cloudformation_json, "", region_name)
        return create(cls, "", cloudformation_json, "", region_name)

    def delete(cls: Any, name: str, document: dict[str, Any], account: str, region: str) -> None:
        if deletes:
            more = {"ForceDeleteWithoutRecovery": True} if deletes == "delete_secret" else {}
            call(service, region, deletes, **{key: name}, **more)

    return type(
        kind.replace(":", ""),
        (Made,),
        {
            "__module__": Made.__module__,
            "cloudformation_name_type": staticmethod(lambda: ""),
            "cloudformation_type": staticmethod(lambda: kind),
            "has_cfn_attr": classmethod(lambda cls, attribute: False),
            "create_from_cloudformation_json": classmethod(cast(Any, create)),
            "update_from_cloudformation_json": classmethod(cast(Any, update)),
            "delete_from_cloudformation_json": classmethod(delete),
        },
    )


def taught() -> None:
    """Adds the types to moto's CloudFormation, and makes a change set act like an update of the stack."""
    from moto.cloudformation import models, parsing, responses

    known = [*parsing.get_model_list(), *map(model, MAKERS)]
    parsing.get_model_list = lambda: list(known)  # type: ignore[assignment]
    execute = models.CloudFormationBackend.execute_change_set

    def diff(self: Any) -> list[Any]:
        """Also counts a parameter with a different value as a change."""
        resources = self.stack.resource_map
        resources.input_parameters = dict(self.stack.stack_parameters)
        found = resources.build_resource_diff(self.template_dict, self.parameters)
        kinds = {**resources._resource_json_map, **self.template_dict["Resources"]}
        return [
            models.Change(action=action, logical_resource_id=name, resource_type=kinds[name]["Type"])
            for action, names in found.items()
            for name in names
        ]

    def executed(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
        """Gives the stack its new outputs and parameters."""
        execute(self, change_set_name, stack_name)
        done = self.describe_change_set(change_set_name)
        done.stack.output_map = parsing.OutputMap(done.stack.resource_map, done.template_dict, done.stack.stack_id)
        done.stack.parameters = {**done.stack.parameters, **done.parameters}

    # AWS creates a failed change set instead of refusing the request
    responses.CloudFormationResponse._validate_different_update = lambda *_: None  # type: ignore[method-assign]
    models.ChangeSet.diff = diff  # type: ignore[method-assign]
    models.CloudFormationBackend.execute_change_set = executed  # type: ignore[method-assign]
    triggering()


def triggering() -> None:
    """Makes a started trigger run its jobs, each with the arguments in the trigger."""
    from moto.glue.models import GlueBackend

    real = GlueBackend.start_trigger

    def started(self: Any, name: str) -> None:
        real(self, name)
        for action in self.get_trigger(name).actions:
            self.start_job_run(action.job_name, action.arguments, *[None] * 8)

    GlueBackend.start_trigger = started  # type: ignore[method-assign]


if __name__ == "__main__":
    from moto.server import main

    from moto_glue import quicken

    quicken()
    taught()
    main(["-H", sys.argv[1], "-p", sys.argv[2]])
