"""The stack, made and taken away for real in moto by the command line; its templates, linted and held against rules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import servers
import wire
from lakes import REPOSITORY
from stedi import cli
from stedi.aws import account, deploy, runs, stacks
from stedi.errors import CloudFailed, UsageError
from stedi.schema.contracts import Kind
from stedi.schema.feeds import CONTRACTS
from stedi.storage import s3

CHECKOV = os.environ.get("STEDI_CHECKOV") or shutil.which(
    "checkov", path=os.pathsep.join([str(REPOSITORY / "build" / "checkov" / "bin"), os.environ.get("PATH", "")])
)
TEMPLATES = ("data", "lake")
BUCKET = f"stedi-data-123456789012-{servers.REGION}"


@pytest.fixture(scope="session")
def cloud_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """moto, its CloudFormation taught the types of the stack that it does not know."""
    port = servers.free_port()
    program = str(REPOSITORY / "tests" / "support" / "moto_cloud.py")
    command = [sys.executable, program, "127.0.0.1", str(port)]
    with servers.running(command, port, tmp_path_factory.mktemp("cloud") / "log"):
        yield servers.Server(f"http://127.0.0.1:{port}", Path())


@pytest.fixture
def cloud(cloud_server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[servers.Server]:
    """An AWS without anything in it, all of it moto's."""
    servers.reset(cloud_server)
    for name, value in servers.environment(s3=cloud_server, aws=cloud_server).items():
        monkeypatch.setenv(name, value)
    for module in (stacks, runs):
        monkeypatch.setattr(module, "POLL", 0.01)
    s3.client.cache_clear()
    account.client.cache_clear()
    with wire.cheap(), wire.few_clients():
        yield cloud_server
    s3.client.cache_clear()
    account.client.cache_clear()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a wheel's shape; the project's own takes a build."""
    path = tmp_path_factory.mktemp("dist") / "stedi-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "stedi-0.1.0.dist-info/METADATA",
            "Metadata-Version: 2.4\nName: stedi\nVersion: 0.1.0\nRequires-Dist: duckdb<2.1,>=1.5.5\n"
            "Requires-Dist: boto3<2,>=1.40; extra == 'aws'\n"
            "Requires-Dist: duckdb-extension-httpfs==1.5.5; extra == 'aws'\n"
            "Requires-Dist: pyspark==4.1.1; extra == 'spark'\n",
        )
    return path


Call = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def stedi(cloud: servers.Server, capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs `stedi --json WORDS`, and returns its exit code, its document and what it said."""

    def run(*words: object) -> tuple[int, Any, str]:
        capfd.readouterr()
        code = cli.main(["--json", *map(str, words)])
        out, said = capfd.readouterr()
        return code, json.loads(out), said

    return run


def test_deploy_makes_every_resource_and_destroy_leaves_the_data(stedi: Call, wheel: Path) -> None:
    code, done, said = stedi("aws", "deploy", "--wheel", wheel, "--yes")
    assert code == 0, said
    assert {"Bucket": BUCKET, "Lake": f"s3://{BUCKET}/lake", "Job": "stedi"}.items() <= done["outputs"].items()
    made = {name: {change["name"] for change in changes} for name, changes in done["changes"].items()}
    for name, stack in zip(TEMPLATES, ("stedi-data", "stedi"), strict=True):
        assert made[stack] == set(resources(name)), "moto's change sets look at no condition"
        for resource in made[stack]:
            assert f"{resource} (AWS::" in said, "every change is shown before it is made"
    job = account.client("glue").get_job(JobName="stedi")["Job"]
    arguments = job["DefaultArguments"]
    assert arguments["--lake"] == f"s3://{BUCKET}/lake"
    assert arguments["--journal"] == done["outputs"]["Journal"] == f"s3://{BUCKET}/journal"
    assert arguments["--key-secret"] == done["outputs"]["SecretArn"]
    modules = arguments["--additional-python-modules"].split(",")
    assert modules == [f"s3://{BUCKET}/{done['code']}", "duckdb-extension-httpfs==1.5.5"]
    assert s3.content(s3.at(modules[0]))[0] == wheel.read_bytes()
    script = s3.content(s3.at(job["Command"]["ScriptLocation"]))[0]
    assert b"stedi.aws.job" in script

    code, found, _ = stedi("aws", "status")
    assert (code, set(found["stacks"])) == (0, {"stedi", "stedi-data"})

    code, gone, _ = stedi("aws", "destroy", "--yes")
    assert (code, gone) == (0, {"deleted": ["stedi"], "objects": 0, "kept": ["stedi-data"]})
    assert s3.at(modules[0]).is_file()
    assert [entry["Name"] for entry in account.client("glue").get_databases()["DatabaseList"]] == ["stedi"]

    code, again, said = stedi("aws", "deploy", "--wheel", wheel, "--yes")
    assert code == 0, said
    assert again["changes"]["stedi-data"] == []
    assert again["outputs"]["SecretArn"] == done["outputs"]["SecretArn"], "the pseudonym key is the one that was there"

    code, gone, _ = stedi("aws", "destroy", "--data", "--yes")
    assert (code, gone["deleted"]) == (0, ["stedi", "stedi-data"])
    assert gone["objects"] >= 2
    assert s3.client().list_buckets()["Buckets"] == []
    assert account.client("secretsmanager").list_secrets()["SecretList"] == []
    assert account.client("glue").get_databases()["DatabaseList"] == []


def test_the_pseudonym_key_that_aws_makes_is_one(cloud: servers.Server, wheel: Path) -> None:
    from stedi.privacy import secrets_manager

    done = deploy.deploy(lambda _: True, lambda _: None, wheel=wheel)
    secrets_manager._client.cache_clear()
    key = secrets_manager.read(f"{secrets_manager.SCHEME}{done.outputs['SecretArn']}")
    assert len(key.secret) == 32
    assert len(set(key.secret.hex())) > 4


def test_a_second_deployment_of_the_same_changes_nothing(stedi: Call, wheel: Path) -> None:
    assert stedi("aws", "deploy", "--wheel", wheel, "--yes")[0] == 0
    code, done, said = stedi("aws", "deploy", "--wheel", wheel, "--yes")
    assert (code, done["changes"]) == (0, {"stedi-data": [], "stedi": []})
    assert said.count("nothing to change") == 2


def test_what_is_not_agreed_to_is_not_done(cloud: servers.Server, wheel: Path) -> None:
    with pytest.raises(CloudFailed, match=r"stedi-data: .*nothing was changed"):
        deploy.deploy(lambda _: False, lambda _: None, wheel=wheel)
    assert stacks.find("stedi-data") is None
    assert s3.client().list_buckets()["Buckets"] == []


def test_without_a_terminal_nothing_is_done_unless_told(
    stedi: Call, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        for words in (("deploy", "--wheel", wheel), ("destroy", "--data")):
            code, done, _ = stedi("aws", *words)
            assert (code, done["error"]["type"]) == (2, "UsageError")
    assert s3.client().list_buckets()["Buckets"] == []


def test_run_starts_the_job_follows_its_log_and_ends_as_it_ended(
    stedi: Call, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stedi("aws", "deploy", "--wheel", wheel, "--yes")[0] == 0
    glue, logs = account.client("glue"), account.client("logs")
    state, group = "SUCCEEDED", "/stedi/stedi/job/output"
    answer = glue.get_job_run

    def ended(**asked: str) -> Any:
        """What Glue does and moto does not: it writes a log, and ends in more ways than one."""
        found = answer(**asked)
        stream = f"{asked['RunId']}-driver"
        if found["JobRun"]["JobRunState"] not in ("STARTING", "RUNNING"):
            found["JobRun"] |= {"JobRunState": state, "ErrorMessage": "" if state == "SUCCEEDED" else "exit 3"}
        if not logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream)["logStreams"]:
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            events = [{"timestamp": time.time_ns() // 1_000_000, "message": "landed 3 of 3 records"}]
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
        return found

    def triggered(**asked: str) -> Any:
        [action] = glue.get_trigger(**asked)["Trigger"]["Actions"]
        started.append(asked["Name"])
        return glue.start_job_run(**action)  # moto's trigger starts nothing

    started: list[str] = []
    monkeypatch.setattr(glue, "start_trigger", triggered)
    monkeypatch.setattr(glue, "get_job_run", ended)
    code, done, said = stedi("aws", "run")
    assert (code, done["state"]) == (0, "SUCCEEDED")
    assert started == ["stedi-now"], "who may start the trigger cannot choose arguments"
    assert said.count("landed 3 of 3 records") == 1
    state = "FAILED"
    code, done, said = stedi("aws", "run", "--workers", 5)
    assert (code, done["state"], done["error"]) == (1, "FAILED", "exit 3")
    code, found, _ = stedi("aws", "status")
    assert len(found["runs"]) == 2


def test_what_aws_refuses_is_one_line(stedi: Call) -> None:
    code, done, _ = stedi("aws", "status", "--stack", "absent")
    assert (code, done["error"]["type"]) == (1, "CloudFailed")
    code, done, said = stedi("aws", "run", "--stack", "absent")
    assert (code, done["error"]["type"]) == (1, "CloudFailed")
    assert "aws deploy" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--stack", "Capitals"), "lower-case"),
        (("--set", "Workers"), "NAME=VALUE"),
        (("--set", "Nothing=1"), "expected one of"),
        (("--wheel", "absent.whl"), "make wheel"),
    ],
)
def test_a_call_that_cannot_be_says_what_was_expected(stedi: Call, words: tuple[str, ...], expected: str) -> None:
    code, done, _ = stedi("aws", "deploy", "--yes", *words)
    assert (code, expected in done["error"]["message"]) == (2, True), done


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stedi-0.1.0-py3-none-any.whl").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="expected a wheel"):
        deploy.extras(tmp_path / "stedi-0.1.0-py3-none-any.whl")


def test_a_wheel_of_a_platform_that_glue_does_not_run_is_refused(tmp_path: Path) -> None:
    for platform, fits in (
        ("any", True),
        ("linux_x86_64", True),
        ("macosx_14_0_arm64", False),
        ("linux_aarch64", False),
    ):
        path = tmp_path / f"stedi-0.1.0-py3-none-{platform}.whl"
        path.touch()
        if fits:
            assert deploy.found_wheel(path) == path
        else:
            with pytest.raises(UsageError, match="STEDI_PURE=1 make wheel"):
                deploy.found_wheel(path)


def test_parameters_that_are_given_once_stay(cloud: servers.Server, wheel: Path) -> None:
    def once(**parameters: str) -> int:
        deploy.deploy(lambda _: True, lambda _: None, wheel=wheel, parameters=parameters)
        return int(account.client("glue").get_job(JobName="stedi")["Job"]["NumberOfWorkers"])

    assert once() == 2
    assert once(Workers="7") == 7
    assert once(TimeoutMinutes="60") == 7


def resources(name: str) -> dict[str, Any]:
    """Returns the resources of a template."""
    from cfnlint import decode

    document, problems = decode.decode_str(stacks.template(name))
    assert not problems
    return dict(document["Resources"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_templates_are_clean_to_cfn_lint(name: str) -> None:
    from cfnlint.api import lint
    from cfnlint.config import ManualArgs

    problems = lint(stacks.template(name), config=ManualArgs(regions=["us-east-1", "eu-central-1", "ap-southeast-2"]))
    assert not problems, [str(problem) for problem in problems]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_fits_into_one_call(name: str) -> None:
    assert len(stacks.template(name).encode()) < 51_200


def test_the_templates_pass_a_security_rule_set() -> None:
    if CHECKOV is None:
        pytest.skip("no checkov: it has an environment of its own, build/checkov, which .ci/run makes")
    files = [str(REPOSITORY / "src" / "stedi" / "aws" / f"{name}.yaml") for name in TEMPLATES]
    command = [CHECKOV, "--framework", "cloudformation", "--skip-download", "--output", "json", "-f", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    failed = [f"{check['check_id']} {check['resource']}" for check in found["results"]["failed_checks"]]
    assert not failed
    assert found["summary"]["passed"] > 50
    assert [c["check_id"] for c in found["results"]["skipped_checks"]] == ["CKV_AWS_18"], "one exception, with a reason"


def test_the_inbox_tables_are_the_contracts_fields() -> None:
    kinds = {Kind.TEXT: "string", Kind.INSTANT: "bigint", Kind.NUMBER: "double", Kind.INTEGER: "bigint"}
    tables = {
        entry["Properties"]["TableInput"]["Name"]: entry["Properties"]["TableInput"]
        for entry in resources("lake").values()
        if entry["Type"] == "AWS::Glue::Table"
    }
    assert tables.keys() == CONTRACTS.keys()
    for feed, contract in CONTRACTS.items():
        columns = [(column["Name"], column["Type"]) for column in tables[feed]["StorageDescriptor"]["Columns"]]
        assert columns == [(field.name.lower(), kinds[field.kind]) for field in contract.fields]


def test_only_what_holds_no_data_goes_with_the_work_stack() -> None:
    """The bucket, the keys and the catalog of tables stand in the data stack alone."""
    lasting = {"AWS::KMS::Key", "AWS::S3::Bucket", "AWS::SecretsManager::Secret"}
    assert not {entry["Type"] for entry in resources("lake").values()} & lasting
    databases = [e for e in resources("lake").values() if e["Type"] == "AWS::Glue::Database"]
    assert [e["Properties"]["DatabaseInput"]["Name"] for e in databases] == ["stedi_inbox"]
