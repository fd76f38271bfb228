"""Who may do what: IAM's decision, computed for each role and each of the lake's actions, and compared with a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from lakes import REPOSITORY
from policies import Request, allowed, listed, resolved, statements
from stedi.aws import stacks
from stedi.schema import classification
from stedi.schema.contracts import PrivacyClass
from stedi.schema.roles import GRANTS
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES, graph

GOLDEN = """\
| | job | crawler | scientist | engineer | officer |
| --- | --- | --- | --- | --- | --- |
| `land`, `build`, `maintain` | yes | - | - | - | yes |
| `withdraw` | yes | - | - | - | yes |
| `explain`, `audit` | yes | - | - | - | yes |
| `erase`, older versions and the inbox included | - | - | - | - | yes |
| `key rotate` to a new secret | - | - | - | - | yes |
| add to the journal | yes | - | - | - | yes |
| take away from the journal | - | - | - | - | - |
| `aws run`: start the job as it stands, read its log | - | - | - | yes | yes |
| start the job with other arguments, or change it or its triggers | - | - | - | - | - |
| start the crawler | - | - | - | yes | - |
| crawl the inbox | - | yes | - | - | - |
| Athena: the training table, which releases there are | - | - | yes | yes | yes |
| Athena: tables that name nobody, who is in a release | - | - | - | yes | yes |
| Athena: tables that name people, quarantine | - | - | - | - | yes |
| Athena: the inbox | - | - | - | - | yes |
| read the pseudonym key | yes | - | - | - | yes |
| read another role's query results | - | - | - | - | - |
| change roles, keys, bucket or stack | - | - | - | - | - |
"""
"""The rights of the roles; the same stands in docs/aws.md."""

ROLES = ("Job", "Crawler", "Scientist", "Engineer", "Officer")
ACCOUNT, REGION, BUCKET = "123456789012", "eu-central-1", "stedi-data-123456789012-eu-central-1"
HERE = f"{REGION}:{ACCOUNT}"
KEY = f"arn:aws:kms:{HERE}:key/1"
SECRET = f"arn:aws:secretsmanager:{HERE}:secret:stedi-data/pseudonym-key-AbCdEf"
NAMES = {
    "AWS::Partition": "aws",
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::StackName": "stedi",
    "Data": "stedi-data",
    "Bucket": BUCKET,
    "KeyArn": KEY,
    "SecretArn": SECRET,
    "Job": "stedi",
    "Crawler": "stedi-inbox",
    "Arrivals": "stedi-arrivals",
    "Now": "stedi-now",
    "Accesses": "stedi-data-accesses",
    "Alarms": f"arn:aws:sns:{HERE}:stedi-alarms",
    "ScientistQueries": "stedi-scientist",
    "EngineerQueries": "stedi-engineer",
    "OfficerQueries": "stedi-officer",
}


@cache
def template(name: str) -> dict[str, Any]:
    from cfnlint import decode

    found: dict[str, Any] = json.loads(json.dumps(decode.decode_str(stacks.template(name))[0]))
    return found["Resources"]  # type: ignore[no-any-return] # as YAML gives it


@cache
def policy(role: str) -> list[dict[str, Any]]:
    return statements(template("lake")[f"{role}Role"], NAMES)


def s3(action: str, key: str) -> Iterator[Request]:
    """An object's call, and the use of the key that encrypts it."""
    yield Request(f"s3:{action}", f"arn:aws:s3:::{BUCKET}/{key}")
    if action in ("GetObject", "PutObject"):
        through = (("kms:ViaService", f"s3.{REGION}.amazonaws.com"),)
        yield Request("kms:Decrypt" if action == "GetObject" else "kms:GenerateDataKey", KEY, through)


def listing(prefix: str, action: str = "ListBucket") -> Request:
    return Request(f"s3:{action}", f"arn:aws:s3:::{BUCKET}", (("s3:prefix", prefix),))


def glue(action: str, database: str, table: str = "") -> Iterator[Request]:
    yield Request(f"glue:{action}", f"arn:aws:glue:{HERE}:catalog")
    yield Request(f"glue:{action}", f"arn:aws:glue:{HERE}:database/{database}")
    if table:
        yield Request(f"glue:{action}", f"arn:aws:glue:{HERE}:table/{database}/{table}")


def lake(*, writes: bool = True) -> Iterator[Request]:
    """What every command of the lake does."""
    yield from (listing("lake"), listing("lake/trusted/"))
    for table, zone in ALL_ZONES.items():
        yield from s3("GetObject", f"lake/{zone}/{table}/metadata/v1.json")
        yield from glue("GetTable", "stedi", table)
        if writes:
            for action in ("PutObject", "DeleteObject", "AbortMultipartUpload"):
                yield from s3(action, f"lake/{zone}/{table}/data/1.parquet")
            yield from glue("UpdateTable", "stedi", table)
            yield from glue("CreateTable", "stedi", table)
    yield from s3("PutObject", "lake/build.lock")
    yield from s3("DeleteObject", "lake/build.lock")
    yield Request("glue:GetTables", f"arn:aws:glue:{HERE}:database/stedi")
    if writes:
        yield listing("journal/x.journal/")
        yield from s3("PutObject", "journal/x.journal/seen.json")
    yield from s3("GetObject", "journal/x.journal/seen.json")
    yield Request("secretsmanager:GetSecretValue", SECRET)


def athena(role: str, *places: tuple[str, str, str]) -> Iterator[Request]:
    """A query of a role over tables: database, table and where the table lies."""
    for action in ("GetWorkGroup", "StartQueryExecution", "GetQueryExecution", "GetQueryResults"):
        yield Request(f"athena:{action}", f"arn:aws:athena:{HERE}:workgroup/stedi-{role.lower()}")
    yield Request("s3:GetBucketLocation", f"arn:aws:s3:::{BUCKET}")
    for action in ("PutObject", "GetObject"):
        yield from s3(action, f"athena/{role.lower()}/1.csv")
    for database, table, place in places:
        yield from glue("GetTable", database, table)
        yield listing(f"{place}/data/")
        yield from s3("GetObject", f"{place}/data/1.parquet")


def tables(*names: str) -> list[tuple[str, str, str]]:
    return [("stedi", name, f"lake/{ALL_ZONES[name]}/{name}") for name in names]


@cache
def naming() -> frozenset[str]:
    """Returns the tables with a column that names people, by the classes of the columns."""
    lineage = classification.ColumnLineage(graph())
    found = {table: classification.LANDED.get(table) or lineage.classes(table) for table in ALL_COLUMNS}
    return frozenset(table for table, columns in found.items() if PrivacyClass.DIRECT in columns.values())


def inbox() -> Iterator[Request]:
    yield listing("inbox/")
    yield from s3("GetObject", "inbox/customer/1.json")


def journal(action: str) -> Iterator[Request]:
    yield from s3(action, "journal/x.journal/seen.json")


def needs(role: str) -> list[list[Request]]:
    """Returns what each line of the table asks for, in its order."""
    job, crawler = f"arn:aws:glue:{HERE}:job/stedi", f"arn:aws:glue:{HERE}:crawler/stedi-inbox"
    now = f"arn:aws:glue:{HERE}:trigger/stedi-now"
    log = f"arn:aws:logs:{HERE}:log-group:/stedi/stedi/job/output:log-stream:jr_1-driver"
    training = "machine_learning_curated"
    others = sorted({"scientist", "engineer", "officer"} - {role.lower()})
    return [
        [*lake(), *inbox()],
        [*lake()],
        [*lake(writes=False)],
        [
            *lake(),
            *inbox(),
            listing("lake/", "ListBucketVersions"),
            *s3("DeleteObjectVersion", "lake/landing/customers_landing/data/1.parquet"),
            *s3("DeleteObjectVersion", "inbox/customer/1.json"),
            *s3("PutObject", "inbox/customer/1.json"),
            Request("s3:ListBucketMultipartUploads", f"arn:aws:s3:::{BUCKET}"),
        ],
        [*lake(), Request("secretsmanager:CreateSecret", SECRET.replace("key-AbCdEf", "key-2027-AbCdEf"))],
        [listing("journal/x.journal/"), *journal("GetObject"), *journal("PutObject")],
        [*journal("DeleteObject")],
        [Request("glue:StartTrigger", now), Request("glue:GetJobRun", job), Request("logs:GetLogEvents", log)],
        [Request("glue:StartJobRun", job)],
        [Request("glue:StartCrawler", crawler)],
        [*inbox(), *glue("GetTable", "stedi_inbox", "customer"), Request("logs:PutLogEvents", _crawler_log())],
        [*athena(role, *tables(training, "releases"))],
        [*athena(role, *tables(*sorted(ALL_COLUMNS.keys() - naming())))],
        [*athena(role, *tables(*sorted(naming())))],
        [*athena(role, ("stedi_inbox", "customer", "inbox/customer")), *s3("GetObject", "inbox/customer/1.json")],
        [Request("secretsmanager:GetSecretValue", SECRET)],
        *[[request] for request in s3("GetObject", f"athena/{others[0]}/1.csv") if request.action == "s3:GetObject"],
        [Request("iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/stedi-OfficerRole")],
    ]


def _crawler_log() -> str:
    return f"arn:aws:logs:{HERE}:log-group:/aws-glue/crawlers:log-stream:stedi-inbox"


def test_each_role_may_do_what_the_table_says() -> None:
    lines = GOLDEN.splitlines()
    computed = lines[:2]
    columns = [[all(allowed(policy(role), r) for r in need) for need in needs(role)] for role in ROLES]
    for place, line in enumerate(lines[2:]):
        cells = ["yes" if column[place] else "-" for column in columns]
        computed.append(f"| {line.split(' | ')[0].removeprefix('| ')} | {' | '.join(cells)} |")
    assert computed == lines


_BECOMES_THE_JOB = (
    *("glue:StartJobRun", "glue:CreateJob", "glue:UpdateJob", "glue:ResetJobBookmark", "glue:CreateSession"),
    *(
        "glue:CreateTrigger",
        "glue:UpdateTrigger",
        "glue:CreateWorkflow",
        "glue:UpdateWorkflow",
        "glue:PutWorkflowRunProperties",
    ),
    *("glue:StartWorkflowRun", "glue:CreateDevEndpoint", "glue:UpdateDevEndpoint", "glue:RunStatement", "iam:PassRole"),
    *("sts:AssumeRole", "lambda:CreateFunction", "cloudformation:CreateChangeSet", "cloudformation:UpdateStack"),
)
"""What lets somebody run code of their own as the job, or as another role."""


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", _BECOMES_THE_JOB)
def test_nobody_runs_code_of_their_own_as_the_job(role: str, action: str) -> None:
    for what in ("job/stedi", "trigger/stedi-now", "trigger/other", "workflow/stedi-arrivals", "session/1"):
        assert not allowed(policy(role), Request(action, f"arn:aws:glue:{HERE}:{what}"))
    assert not allowed(policy(role), Request(action, f"arn:aws:iam::{ACCOUNT}:role/stedi-JobRole"))


@pytest.mark.parametrize("role", ROLES)
def test_nobody_but_who_deploys_writes_the_jobs_script_or_modules(role: str) -> None:
    for key in ("code/0123456789abcdef/glue.py", "code/0123456789abcdef/stedi.whl", "code/x"):
        for action in ("PutObject", "DeleteObject", "DeleteObjectVersion"):
            [request, *_] = s3(action, key)
            assert not allowed(policy(role), request)


@pytest.mark.parametrize("role", ROLES)
def test_only_the_job_and_the_officer_write_the_journal_and_nobody_takes_versions_of_it_away(role: str) -> None:
    writes = all(allowed(policy(role), request) for request in journal("PutObject"))
    assert writes == (role in ("Job", "Officer"))
    for action in ("DeleteObject", "DeleteObjectVersion"):
        [request, *_] = journal(action)
        assert not allowed(policy(role), request)


def test_the_jobs_journal_lies_outside_the_lake_in_a_bucket_that_keeps_its_versions() -> None:
    arguments = template("lake")["Job"]["Properties"]["DefaultArguments"]
    assert resolved(arguments["--journal"], NAMES) == f"s3://{BUCKET}/journal"
    assert resolved(arguments["--lake"], NAMES) == f"s3://{BUCKET}/lake"
    bucket = template("data")["Bucket"]["Properties"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = bucket["LifecycleConfiguration"]["Rules"]
    kept = {
        rule.get("Prefix"): rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
        for rule in rules
        if "NoncurrentVersionExpiration" in rule
    }
    assert kept == {"lake/": 1, "inbox/": 1, "athena/": 1, "code/": 1, "journal/": 90}
    assert not any("ExpirationInDays" in rule for rule in rules if rule.get("Prefix") in (None, "lake/", "journal/"))


def test_the_triggers_give_the_job_no_arguments() -> None:
    resources = template("lake")
    triggers = [found["Properties"] for found in resources.values() if found["Type"] == "AWS::Glue::Trigger"]
    assert len(triggers) == 3
    assert all(set(action) == {"JobName"} for trigger in triggers for action in trigger["Actions"])


def test_what_athena_and_the_log_of_accesses_keep_expires() -> None:
    for bucket, prefix, days in (("Bucket", "athena/", 7), ("Accesses", None, 90)):
        rules = template("data")[bucket]["Properties"]["LifecycleConfiguration"]["Rules"]
        found = [rule for rule in rules if rule.get("Prefix") == prefix and "ExpirationInDays" in rule]
        assert [(rule["Status"], rule["ExpirationInDays"]) for rule in found] == [("Enabled", days)]
    groups = [found["Properties"] for found in template("lake").values() if found["Type"] == "AWS::Athena::WorkGroup"]
    assert len(groups) == 3
    for group in groups:
        configuration = group["WorkGroupConfiguration"]
        assert configuration["EnforceWorkGroupConfiguration"] is True, "a client's own place for results is ignored"
        place = resolved(configuration["ResultConfiguration"]["OutputLocation"], NAMES)
        assert str(place).startswith(f"s3://{BUCKET}/athena/")


def test_the_documented_table_is_this_one() -> None:
    assert GOLDEN in (REPOSITORY / "docs" / "aws.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("role", "name"), [("Scientist", "scientist"), ("Engineer", "engineer"), ("Officer", "officer")]
)
def test_a_role_of_people_reads_the_tables_that_its_grant_shows_unmasked(role: str, name: Any) -> None:
    """One table decides for `query --role` and for AWS: a file has no masked columns, so masked tables are not read."""
    grant = GRANTS[name]
    whole = {table for table in grant.tables if PrivacyClass.DIRECT not in grant.masked or table not in naming()}
    read = {
        table
        for table, zone in ALL_ZONES.items()
        if all(
            allowed(policy(role), request)
            for request in (*s3("GetObject", f"lake/{zone}/{table}/data/1"), *glue("GetTable", "stedi", table))
        )
    }
    assert read == whole


def test_no_role_of_people_but_the_officer_reads_a_manifest_of_a_table_that_names_people() -> None:
    """Manifests hold the least and greatest address of each file."""
    for role in ("Scientist", "Engineer", "Crawler"):
        for table in naming():
            for request in s3("GetObject", f"lake/{ALL_ZONES[table]}/{table}/metadata/m0.avro"):
                assert request.action != "s3:GetObject" or not allowed(policy(role), request)


@pytest.mark.parametrize("name", ["data", "lake"])
def test_no_policy_allows_every_action_or_everything_of_a_service(name: str) -> None:
    found = list(policies(template(name)))
    assert found
    for place, statement in found:
        if statement["Effect"] == "Deny":
            continue
        for action in listed(statement["Action"]):
            assert "*" not in action, f"{place}: {action}"
        for resource in listed(statement.get("Resource", ())):
            text = str(resolved(resource, NAMES))
            if text == "*":
                assert place == "Key", f"{place}: only a key's own policy means itself by *"
            else:
                assert text.count(":") >= 5 or not text.startswith("arn:"), f"{place}: {text}"
                assert not text.endswith(":*"), f"{place}: {text}"


def policies(resources: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every statement that stands anywhere in a template, with the resource that has it."""

    def below(place: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(value, dict):
            if "Effect" in value:
                yield place, value
            for inner in value.values():
                yield from below(place, inner)
        if isinstance(value, list):
            for inner in value:
                yield from below(place, inner)

    for place, value in resources.items():
        yield from below(place, value)


def test_services_are_trusted_for_this_account_alone() -> None:
    trusting = [s for _, s in policies(template("lake")) if "Service" in s.get("Principal", {})]
    assert len(trusting) == 4
    for statement in trusting:
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_the_evaluator_lets_a_denial_win_and_knows_conditions() -> None:
    allow = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::b/*"}
    deny = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/secret/*"}
    only = {**allow, "Condition": {"StringLike": {"s3:prefix": ["a/*"]}}}
    asked = Request("s3:GetObject", "arn:aws:s3:::b/secret/1")
    assert allowed([allow], asked)
    assert not allowed([allow, deny], asked)
    assert not allowed([], asked)
    assert not allowed([only], asked)
    assert allowed([only], Request("s3:getobject", "arn:aws:s3:::b/1", (("s3:prefix", "a/b"),)))
    with pytest.raises(NotImplementedError):
        allowed([{**allow, "Condition": {"IpAddress": {}}}], asked)
