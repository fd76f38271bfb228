"""Deploys the lake's stacks and code on AWS, and removes them.

The data stack is deployed first. Then the code is uploaded to its bucket under a name made from its hash, so that a
current run keeps the code that it started with. The stack that runs the code is deployed last.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Mapping
from email.parser import Parser
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stedi._frozen import dataclass
from stedi.aws import stacks
from stedi.aws.account import answering
from stedi.errors import CloudFailed, UsageError, many
from stedi.storage import destinations, s3

STACK = "stedi"
"""The default name of the stack."""
_PROVIDED = ("boto3",)
"""Dependencies of the extra that Glue provides."""

Asked = Callable[[stacks.ChangeSet], bool]
"""Called with a change set; returns whether to execute it."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """The result of a deployment.

    Attributes:
        stack: The stack's name.
        changes: The changes made, by stack.
        code: The key of the wheel in the bucket.
        outputs: The outputs of both stacks.
    """

    stack: str
    changes: Mapping[str, tuple[stacks.Change, ...]]
    code: str
    outputs: Mapping[str, str]


def data_stack(stack: str) -> str:
    """Returns the name of the stack that holds a stack's data.

    Raises:
        UsageError: The stack's name cannot be the beginning of a bucket's name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,18}[a-z0-9]", stack):
        raise UsageError(
            f"--stack: expected 2 to 20 lower-case letters, digits and hyphens, found {stack!r}; a bucket is named so"
        )
    return f"{stack}-data"


def deploy(
    asked: Asked,
    say: stacks.Say,
    *,
    stack: str = STACK,
    wheel: Path | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Deployed:
    """Creates or updates the lake's stacks and uploads the code that they run.

    Args:
        asked: Called with each change set before it is executed.
        say: Called with each line of progress.
        stack: The stack's name.
        wheel: The project's wheel; by default the one in `dist/`.
        parameters: Values of the templates' parameters, by name.

    Raises:
        UsageError: There is no wheel, or a parameter is unknown.
        CloudFailed: AWS refused a request, or `asked` returned False.
    """
    data, given = data_stack(stack), dict(parameters or {})
    _known(given)
    code = found_wheel(wheel)
    changes = {data: _update_stack(data, stacks.template("data"), given, asked, say)}
    made = stacks.outputs(data)
    folder = f"code/{_digest(code)}"
    script = resources.files("stedi.aws") / "glue.py"
    say(f"uploading {code.name} to s3://{made['Bucket']}/{folder}/")
    # before the stack names it: until then, and if the update fails, runs go on with the code of before
    with resources.as_file(script) as local:
        root = s3.at(f"s3://{made['Bucket']}/{folder}")
        s3.upload([(code, root / code.name), (local, root / "glue.py")])
    given |= {
        "Data": data,
        "Bucket": made["Bucket"],
        "KeyArn": made["KeyArn"],
        "SecretArn": made["SecretArn"],
        "Script": f"{folder}/glue.py",
        "Modules": ",".join([f"s3://{made['Bucket']}/{folder}/{code.name}", *extras(code)]),
    }
    changes[stack] = _update_stack(stack, stacks.template("lake"), given, asked, say)
    return Deployed(stack, changes, f"{folder}/{code.name}", {**made, **stacks.outputs(stack)})


def destroy(say: stacks.Say, *, stack: str = STACK, data: bool = False) -> dict[str, object]:
    """Deletes the stack that works on the lake and, on request, the lake itself.

    Args:
        say: Called with each line of progress.
        stack: The stack's name.
        data: Whether to delete the bucket, every version in it, its keys and the catalog, too.

    Returns:
        The deleted stacks, the number of deleted objects, and the stacks that were kept.
    """
    kept = data_stack(stack)
    # the stack that works goes first: it must not write into a bucket that is being emptied
    gone = [stack] if stacks.delete(stack, say) else []
    objects = 0
    if data:
        made = stacks.outputs(kept)
        for name in ("Bucket", "Accesses"):
            if name in made:
                say(f"emptying s3://{made[name]}")
                objects += empty(made[name])
        if stacks.delete(kept, say):
            gone.append(kept)
    return {"deleted": gone, "objects": objects, "kept": [] if data or stacks.find(kept) is None else [kept]}


def empty(bucket: str) -> int:
    """Deletes every version of every object in a bucket and aborts unfinished uploads; returns the number of objects.

    Raises:
        CloudFailed: S3 refused to delete an object.
    """
    store, where = s3.client(), f"s3://{bucket}"
    objects = 0
    with answering(where):
        for page in store.get_paginator("list_object_versions").paginate(Bucket=bucket):
            # in a bucket with versions, deleting an object only hides it
            entries = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            if not entries:
                continue
            named = [{name: entry[name] for name in ("Key", "VersionId")} for entry in entries]
            refused = store.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True}).get("Errors", [])
            if refused:
                first = refused[0]
                raise CloudFailed(f"{where}: S3 refused to delete {many(len(refused), 'object')} ({first.get('Code')})")
            objects += sum(entry["IsLatest"] for entry in page.get("Versions", ()))
        for page in store.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", ()):
                store.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return objects


def found_wheel(wheel: Path | None) -> Path:
    """Returns the wheel to deploy.

    Raises:
        UsageError: There is no wheel, there are several, or it is for a platform other than Glue's.
    """
    candidates = [destinations.expanded(wheel)] if wheel is not None else sorted(Path("dist").glob("stedi-*.whl"))
    if not candidates or not candidates[0].is_file():
        raise UsageError(f"{wheel or 'dist/'}: expected the project's wheel, found none; make it with `make wheel`")
    if len(candidates) > 1:
        raise UsageError(f"dist/: expected one wheel, found {len(candidates)}; name one with --wheel")
    if not re.fullmatch(r"stedi-[^-]+-[^-]+-[^-]+-[^-]+\.whl", candidates[0].name):
        raise UsageError(f"{candidates[0]}: expected the project's wheel, found another file")
    if not re.search(r"-(any|(many)?linux\w*_x86_64)\.whl$", candidates[0].name):
        raise UsageError(
            f"{candidates[0]}: expected a wheel for Linux on x86-64, which Glue runs, found another platform's; make "
            "one for every platform with `STEDI_PURE=1 make wheel`"
        )
    return candidates[0]


def extras(wheel: Path) -> list[str]:
    """Returns the requirements of a wheel's extra `aws` that Glue does not provide, in pip's format."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
            metadata = Parser().parsestr(archive.read(name).decode())
    except (zipfile.BadZipFile, StopIteration, UnicodeDecodeError) as error:
        raise UsageError(f"{wheel}: expected a wheel, found another file") from error
    needs = [entry.partition(";") for entry in metadata.get_all("Requires-Dist", [])]
    wanted = [need.strip() for need, _, when in needs if re.search(r"""extra\s*==\s*['"]aws['"]""", when)]
    return [_pinned(need) for need in wanted if re.split(r"[^\w.-]", need)[0] not in _PROVIDED]


def _pinned(need: str) -> str:
    """Pins a requirement to the version installed here, so that runs install the tested version, not the newest."""
    name = re.split(r"[^\w.-]", need)[0]
    named = re.match(r"[\w.-]+(?:\[[\w.-]+\])?", need)
    try:
        return f"{named[0] if named else name}=={version(name)}"
    except PackageNotFoundError:
        # Glue's list is separated by commas, so of a range only the first part can be given
        return need.split(",")[0]


def _known(parameters: Mapping[str, str]) -> None:
    # what `deploy` fills in by itself
    ours = {"Data", "Bucket", "KeyArn", "SecretArn", "Script", "Modules"}
    known = frozenset().union(*(stacks.parameters_of(stacks.template(name)) for name in ("data", "lake"))) - ours
    for name in parameters:
        if name not in known:
            raise UsageError(f"--set: expected one of {', '.join(sorted(known))}, found {name!r}")


def _update_stack(
    name: str, body: str, parameters: Mapping[str, str], asked: Asked, say: stacks.Say
) -> tuple[stacks.Change, ...]:
    """Updates a stack to a template if `asked` confirms it."""
    proposed = stacks.propose(name, body, parameters)
    if not proposed.changes:
        say(f"stack {name}: nothing to change")
        return ()
    if not asked(proposed):
        stacks.discard(proposed)
        raise CloudFailed(f"stack {name}: expected yes, found another answer; nothing was changed")
    stacks.execute(proposed, say)
    return proposed.changes


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
