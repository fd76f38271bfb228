"""CloudFormation stacks: creates a change set, which the caller shows and then executes, and follows it to the end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from stedi._frozen import dataclass
from stedi.aws.account import answering, client
from stedi.errors import CloudFailed

POLL = 3.0
"""Seconds between two checks of a changing stack."""

Say = Callable[[str], None]
"""Called with each line of progress."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that a change set would make to one resource.

    Attributes:
        action: `Add`, `Modify`, `Remove` or another of CloudFormation's actions.
        name: The resource's name in the template.
        kind: The resource's type.
        replaced: Whether the resource would be replaced: `True`, `False` or `Conditional`; empty for a new resource.
    """

    action: str
    name: str
    kind: str
    replaced: str = ""

    def __str__(self) -> str:
        return f"{self.action:8} {self.name} ({self.kind})" + (
            ", replaced" if self.replaced not in ("", "False") else ""
        )


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Changes that CloudFormation has computed but not made.

    Attributes:
        stack: The stack's name.
        name: The change set's ARN.
        new: Whether it would create the stack.
        changes: The changes; empty if the stack already matches the template.
    """

    stack: str
    name: str
    new: bool
    changes: tuple[Change, ...]


def template(name: str) -> str:
    """Returns the text of a template of this package: `data` or `lake`."""
    return (resources.files("stedi.aws") / f"{name}.yaml").read_text("utf-8")


def parameters_of(body: str) -> frozenset[str]:
    """Returns the names of the parameters of one of this package's templates."""
    section = re.search(r"^Parameters:\n((?:(?: .*)?\n)+)", body, re.MULTILINE)
    return frozenset(re.findall(r"^  (\w+):$", section[1], re.MULTILINE)) if section else frozenset()


def find(stack: str) -> dict[str, Any] | None:
    """Returns CloudFormation's description of a stack, or None if there is no such stack."""
    from botocore.exceptions import ClientError

    with answering(f"stack {stack}"):
        try:
            found: dict[str, Any] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError as error:
            said = error.response.get("Error", {})
            if said.get("Code") == "ValidationError" and "does not exist" in said.get("Message", ""):
                return None
            raise
    # a change set for a stack that does not exist yet creates an empty stack
    return None if found["StackStatus"] == "REVIEW_IN_PROGRESS" else found


def outputs(stack: str) -> dict[str, str]:
    """Returns a stack's outputs by name; nothing if there is no stack."""
    found = find(stack) or {}
    return {output["OutputKey"]: output.get("OutputValue", "") for output in found.get("Outputs", ())}


def propose(stack: str, body: str, parameters: Mapping[str, str]) -> ChangeSet:
    """Creates the change set that would update a stack to a template.

    Args:
        stack: The stack's name.
        body: The template.
        parameters: Values of its parameters; a parameter that is not given keeps its value or the template's default.

    Raises:
        CloudFailed: The template or the stack's state does not allow it.
    """
    cloud, found = client("cloudformation"), find(stack)
    status = found["StackStatus"] if found else ""
    if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"):
        raise CloudFailed(
            f"stack {stack}: expected a stack that can change, found {status}; delete it "
            "in CloudFormation and deploy again: it holds nothing"
        )
    known = {parameter["ParameterKey"] for parameter in (found or {}).get("Parameters", ())}
    declared = parameters_of(body)
    entries: list[dict[str, Any]] = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in sorted(parameters.items()) if key in declared
    ]
    entries += [
        {"ParameterKey": key, "UsePreviousValue": True} for key in sorted((known & declared) - parameters.keys())
    ]
    with answering(f"stack {stack}"):
        made = cloud.create_change_set(
            StackName=stack,
            ChangeSetName=f"stedi-{time.time_ns()}",
            ChangeSetType="UPDATE" if found else "CREATE",
            TemplateBody=body,
            Parameters=entries,
            Capabilities=["CAPABILITY_IAM"],
            Tags=[{"Key": "stedi", "Value": stack}],
        )["Id"]
        while (seen := cloud.describe_change_set(ChangeSetName=made, StackName=stack))["Status"] in (
            "CREATE_PENDING",
            "CREATE_IN_PROGRESS",
        ):
            time.sleep(POLL)
        reason = seen.get("StatusReason", "")
        if (
            # CloudFormation calls an empty change set failed, for one of two reasons
            seen["Status"] != "CREATE_COMPLETE"
            and "didn't contain changes" not in reason
            and "No updates" not in reason
        ):
            raise CloudFailed(f"stack {stack}: expected a change set, found {seen['Status']}: {reason}")
        changes = [] if seen["Status"] != "CREATE_COMPLETE" else _changes(made, stack)
        if not changes:
            cloud.delete_change_set(ChangeSetName=made, StackName=stack)
    return ChangeSet(stack, made, found is None, tuple(changes))


def _changes(name: str, stack: str) -> list[Change]:
    pages = client("cloudformation").get_paginator("describe_change_set").paginate(ChangeSetName=name, StackName=stack)
    found = [change["ResourceChange"] for page in pages for change in page["Changes"]]
    return [
        Change(entry["Action"], entry["LogicalResourceId"], entry["ResourceType"], entry.get("Replacement") or "")
        for entry in found
    ]


def discard(proposed: ChangeSet) -> None:
    """Deletes a change set, and the empty stack that it has created, if any."""
    with answering(f"stack {proposed.stack}"):
        client("cloudformation").delete_change_set(ChangeSetName=proposed.name, StackName=proposed.stack)
        if proposed.new:
            client("cloudformation").delete_stack(StackName=proposed.stack)


def execute(proposed: ChangeSet, say: Say) -> None:
    """Executes a change set and returns when the stack is up to date.

    Raises:
        CloudFailed: A change failed and CloudFormation has rolled back; the message gives the reason.
    """
    with answering(f"stack {proposed.stack}"):
        # before the change begins: the stack's history has the events of every earlier one
        seen = _seen(proposed.stack)
        client("cloudformation").execute_change_set(ChangeSetName=proposed.name, StackName=proposed.stack)
    _follow(proposed.stack, ("CREATE_COMPLETE", "UPDATE_COMPLETE"), say, seen)


def delete(stack: str, say: Say) -> bool:
    """Deletes a stack and waits until it is deleted; returns whether there was one.

    Raises:
        CloudFailed: A part of it could not be deleted.
    """
    found = find(stack)
    if found is None:
        return False
    with answering(f"stack {stack}"):
        seen = _seen(stack)
        client("cloudformation").delete_stack(StackName=stack)
    # by its id: CloudFormation does not find a deleted stack by its name
    _follow(found["StackId"], ("DELETE_COMPLETE",), say, seen)
    return True


def _seen(stack: str) -> set[str]:
    return {event["EventId"] for event in _events(stack)}


def _events(stack: str) -> list[dict[str, Any]]:
    """Returns a stack's latest events, oldest first."""
    found = client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    return list(reversed(found))


def _follow(stack: str, ends: tuple[str, ...], say: Say, seen: set[str]) -> None:
    """Reports each event of a stack until the stack has stopped changing."""
    reason = ""
    while True:
        with answering(f"stack {stack}"):
            status = client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
            for event in _events(stack):
                if event["EventId"] in seen:
                    continue
                seen.add(event["EventId"])
                state, why = event.get("ResourceStatus", ""), event.get("ResourceStatusReason", "")
                say(f"{event.get('LogicalResourceId', '')}: {state.lower().replace('_', ' ')}")
                # the first failure is the reason; everything under way is cancelled because of it
                if state.endswith("FAILED") and "cancelled" not in why.lower():
                    reason = reason or f"{event.get('LogicalResourceId')}: {why}"
        if status in ends:
            return
        if not status.endswith("IN_PROGRESS"):
            raise CloudFailed(f"stack {stack}: expected {ends[0]}, found {status}" + (f"; {reason}" if reason else ""))
        time.sleep(POLL)
