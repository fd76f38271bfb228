"""Evaluates the policies of a template's roles as IAM would.

It supports what the stack's policies use: Allow and Deny, wildcards in actions and resources, and the conditions
`StringLike` and `StringEquals`. Anything else in a policy raises an error, so that no policy is evaluated in part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_SUB = re.compile(r"\$\{([\w:]+)(?:\.\w+)?\}")


@dataclass(frozen=True)
class Request:
    """One call: its action, its resource, and the values that conditions use."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


def resolved(value: Any, names: Mapping[str, str]) -> Any:
    """Returns a part of a template with its references replaced.

    Args:
        value: The part.
        names: The value of each parameter, pseudo-parameter and resource name.
    """
    match value:
        case {"Ref": name}:
            return names[name]
        case {"Fn::Sub": text}:
            return _SUB.sub(lambda found: names[found[1]], text)
        case {"Fn::GetAtt": [name, *_]}:
            return names[name]
        case {"Fn::If": [_, _, otherwise]}:
            return resolved(otherwise, names)
        case dict():
            return {key: resolved(inner, names) for key, inner in value.items()}
        case list():
            return [resolved(inner, names) for inner in value]
    return value


def statements(role: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the statements of a role's own policies; it must have no others."""
    properties = role["Properties"]
    assert "ManagedPolicyArns" not in properties, "a policy of AWS's own allows what it likes"
    found = [s for policy in properties["Policies"] for s in policy["PolicyDocument"]["Statement"]]
    return [resolved(dict(statement), names) for statement in found]


def allowed(policy: Iterable[Mapping[str, Any]], request: Request) -> bool:
    """Returns whether IAM would allow a call: a statement allows it and none denies it."""
    effects = {statement["Effect"] for statement in policy if _applies(statement, request)}
    assert effects <= {"Allow", "Deny"}
    return effects == {"Allow"}


def _applies(statement: Mapping[str, Any], request: Request) -> bool:
    assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}, sorted(statement)
    return (
        any(_like(pattern, request.action, re.IGNORECASE) for pattern in listed(statement["Action"]))
        and any(_like(pattern, request.resource) for pattern in listed(statement["Resource"]))
        and all(_holds(name, keys, request) for name, keys in statement.get("Condition", {}).items())
    )


def _holds(operator: str, keys: Mapping[str, Any], request: Request) -> bool:
    context = dict(request.context)
    match operator:
        case "StringLike":
            return all(k in context and any(_like(p, context[k]) for p in listed(v)) for k, v in keys.items())
        case "StringEquals":
            return all(context.get(k) in listed(v) for k, v in keys.items())
    raise NotImplementedError(operator)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _like(pattern: str, text: str, flags: int = 0) -> bool:
    wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(wild, text, flags | re.DOTALL) is not None
