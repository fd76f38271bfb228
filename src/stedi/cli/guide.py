"""Help for newcomers: the commands in groups, each with its purpose and examples.

The parser (`commands`) defines a command's words; this module explains their purpose. Commands without an entry here
are listed with their own help under the last group.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """The explanation of a command.

    Attributes:
        brief: What it does, in at most 44 characters.
        why: Its purpose, in a line.
        examples: Calls without `stedi`; the first, of at most 30 characters, is in the list of commands.
    """

    brief: str
    why: str
    examples: tuple[str, str]


EVERY_DAY = {
    "demo": Entry(
        "makes sample data, lands and builds it",
        "To see a complete lake in half a minute, before you have your own data.",
        ("demo", "demo --readings 1000000"),
    ),
    "init": Entry(
        "makes a lake: settings, catalog and key",
        "To choose settings before the first landing; `land` makes a lake with the defaults.",
        ("init", "--lake /data/lake init --readings since-consent"),
    ),
    "land": Entry(
        "lands new files and folders",
        "Every record is checked once: good ones land, the others go to quarantine with a reason.",
        ("land inbox/", "land --feed customer 'exports/2026-11-*.json.gz'"),
    ),
    "build": Entry(
        "builds what has changed",
        "Updates the tables below landing for new records and current consent; all pass the proof, or none changes.",
        ("build --dry-run", "build"),
    ),
    "watch": Entry(
        "lands and builds what arrives in a folder",
        "For rows in the training table seconds after a file is complete, without a scheduler.",
        ("watch inbox/", "watch --every 10s inbox/"),
    ),
    "status": Entry(
        "shows what waits, is late or is wrong",
        "A morning check for people, and a health check for schedulers, which read the exit code.",
        ("status", "status --max-age 8d --json"),
    ),
    "tables": Entry(
        "lists tables: zone, rows, size, freshness",
        "To see which tables you can query, and how fresh they are.",
        ("tables", "tables --json"),
    ),
    "describe": Entry(
        "explains a table's columns",
        "To look up grain, units and privacy classes before you use a table.",
        ("describe customers_trusted", "describe machine_learning_curated --json"),
    ),
    "query": Entry(
        "runs one read-only SELECT",
        "To read the tables, now or as they were; identifiers are masked unless the role may see them.",
        ("query 'from customers_trusted'", "query --output steps.csv.gz 'select * from step_trainer_trusted'"),
    ),
    "quarantine": Entry(
        "lists refused records",
        "To find which field was wrong, and what to ask the sender to correct.",
        ("quarantine --fields", "quarantine --show 60ae6aa84404:87"),
    ),
    "history": Entry(
        "lists a table's snapshots",
        "To see when a table changed and what each state was built from; `query --at` reads one.",
        ("history customers_trusted", "history --verbose machine_learning_curated"),
    ),
    "runs": Entry(
        "lists runs: duration, rows, outcome",
        "To find out what happened last night.",
        ("runs", "runs --limit 5 --json"),
    ),
    "dataset": Entry(
        "creates and manages training sets",
        "A training set is split by person, proved and signed; it becomes stale when somebody in it withdraws.",
        ("dataset create gait", "dataset list --stale"),
    ),
    "tag": Entry(
        "tags the current state of the tables",
        "To read the same state again later: `query --at NAME`.",
        ("tag before-audit", "tag --delete before-audit"),
    ),
}
RIGHTS = {
    "explain": Entry(
        "explains where a customer's rows are",
        "To answer what the lake holds about a person, and why a row is or is not in a table.",
        ("explain ana@example.com", "explain --table step_trainer_trusted --where 'distanceFromObject > 290'"),
    ),
    "withdraw": Entry(
        "lands withdrawals from research",
        "A customer withdraws consent: the next build removes them from every table below landing.",
        ("withdraw ana@example.com", "withdraw --build --yes --file withdrawn.txt"),
    ),
    "export": Entry(
        "writes all data of a customer",
        "To answer a request for access: all of the person's data, and nothing of anybody else.",
        ("export ana@x.org --output out/", "export --zip --output ana.zip ana@example.com"),
    ),
    "erase": Entry(
        "erases customers for good",
        "To answer a request for erasure: every file is searched afterwards, and a receipt is signed.",
        ("erase --dry-run ana@x.org", "erase --inbox inbox/ --reference R-17 ana@example.com"),
    ),
    "consent": Entry(
        "counts consent over time",
        "To see how many joined and withdrew, by day, week or month.",
        ("consent --by week", "consent --format csv"),
    ),
    "roles": Entry(
        "prints what each role sees in a query",
        "To choose a role for somebody, or to show who can see identifiers.",
        ("roles", "roles --json"),
    ),
    "log": Entry(
        "lists who was shown rows of people",
        "To account for every access to personal data.",
        ("log", "log --since 2026-11-01"),
    ),
}
UPKEEP = {
    "audit": Entry(
        "proves the rules of consent over all tables",
        "An independent proof for those responsible for the lake; it exits with 3 if a rule is broken.",
        ("audit", "audit --files --report audit.html"),
    ),
    "report": Entry(
        "writes one page about the lake",
        "To show consent, tables, releases and risk to somebody without a command line.",
        ("report", "report --output report.html --since last.json"),
    ),
    "verify": Entry(
        "checks a lake's signatures",
        "For recipients of a release, receipt or report; it needs neither lake nor key.",
        ("verify audit.html", "verify --public-key sign.pub release/"),
    ),
    "doctor": Entry(
        "checks the machine, the lake and its key",
        "When something does not work: each line says what to do.",
        ("doctor", "doctor aws"),
    ),
    "maintain": Entry(
        "compacts files, expires old snapshots",
        "Run it weekly: fewer files, less disk, the same rows; old snapshots with withdrawn people are removed, too.",
        ("maintain --dry-run", "maintain"),
    ),
    "repair": Entry(
        "repairs damage that the audit finds",
        "After a disk failure: tables are rebuilt from landing as far as possible.",
        ("repair", "repair --accept-rollback"),
    ),
    "key": Entry(
        "shows the pseudonym key, or changes it",
        "When the key may have leaked, or on a schedule.",
        ("key show", "key rotate --to new.key"),
    ),
    "adopt": Entry(
        "makes a copied or moved lake writable",
        "After a lake's folder was moved or restored elsewhere: table locations are absolute.",
        ("adopt", "--lake copy/ adopt --new-id"),
    ),
    "migrate": Entry(
        "brings an older lake to today's format",
        "After an update of stedi that asks for it; a backup is kept, and `--back` restores it.",
        ("migrate --dry-run", "migrate"),
    ),
    "completion": Entry(
        "prints completion for bash, zsh or fish",
        "To complete commands and options with the Tab key; the script is static and fast.",
        ("completion bash", "completion fish"),
    ),
}
SCHEMAS = {
    "crawl": Entry(
        "compares files with their contracts",
        "Before landing a new delivery: types, ranges and drift, without values.",
        ("crawl inbox/", "crawl --sample 1000 inbox/customer"),
    ),
    "contract": Entry(
        "prints data contracts (ODCS, YAML)",
        "For catalogs and tests that read the Open Data Contract Standard.",
        ("contract", "contract customers_trusted"),
    ),
    "ddl": Entry(
        "prints DDL for Athena or Spark",
        "To read the tables with other engines.",
        ("ddl", "ddl --dialect spark --location s3://bucket/lake"),
    ),
    "ndjson": Entry(
        "rewrites any JSON as one record a line",
        "For readers that need newline-delimited JSON and misread other shapes.",
        ("ndjson in.json out.json", "ndjson --rejects bad.json inbox/ lines/"),
    ),
}
AWS = {
    "aws": Entry(
        "deploys the lake on AWS and runs it there",
        "For teams whose data lie in S3: Glue runs the job, Athena reads the tables.",
        ("aws deploy", "aws cost --customers 1000000"),
    ),
}
GROUPS: Mapping[str, Mapping[str, Entry]] = {
    "every day": EVERY_DAY,
    "people's rights": RIGHTS,
    "maintenance and proofs": UPKEEP,
    "schemas and files": SCHEMAS,
    "AWS": AWS,
}
ACTIONS = {
    "dataset create": Entry(
        "writes the next version of a training set",
        "Due builds run first; the split is by person, so nobody is in two splits.",
        ("dataset create gait", "dataset create gait --match nearest --window 10s --labels steps.csv"),
    ),
    "dataset list": Entry(
        "lists releases",
        "To find releases with people who have left since; it exits with 3 if --stale lists any.",
        ("dataset list", "dataset list --stale"),
    ),
    "dataset show": Entry(
        "shows the content of a release",
        "To see its splits and the origin of its readings.",
        ("dataset show gait", "dataset show gait@1 --json"),
    ),
    "dataset note": Entry(
        "notes that a model was trained on a release",
        "So that a recall can name the models, too.",
        ("dataset note gait@1 --model cnn-7", "dataset note gait@2 --model 'forest, 2026-11-29'"),
    ),
    "dataset diff": Entry(
        "compares two releases",
        "To see how people differ before you compare models of the two.",
        ("dataset diff gait@1 gait@2", "dataset diff gait@1 gait --json"),
    ),
    "dataset delete": Entry(
        "removes a release's folder",
        "To free its space; it can still be recalled.",
        ("dataset delete gait@1", "dataset delete gait@1 --json"),
    ),
    "dataset refresh": Entry(
        "writes the next version without those who left",
        "After withdrawals: the same options, the same splits, fewer people.",
        ("dataset refresh gait", "dataset refresh gait --labels steps.csv"),
    ),
    "dataset recall": Entry(
        "tells recipients whom to drop",
        "The lake cannot change copies elsewhere: send this signed file to their holders.",
        ("dataset recall gait@1", "dataset recall gait@1 --output recall.json"),
    ),
    "dataset apply-recall": Entry(
        "drops the people of a recall from a copy",
        "For holders of a copy of a release; it needs no lake.",
        ("dataset apply-recall gait/ recall.json", "dataset apply-recall gait/ recall.json --json"),
    ),
    "dataset verify": Entry(
        "checks a release against its signature",
        "For recipients of a release; it needs neither lake nor key.",
        ("dataset verify gait/", "dataset verify gait/ --public-key sign.pub"),
    ),
    "aws deploy": Entry(
        "creates or updates the stack",
        "It shows every change and asks before it makes any.",
        ("aws deploy", "aws deploy --set Schedule=rate(6hours) --yes"),
    ),
    "aws status": Entry(
        "shows the stack and its latest runs",
        "To see the resources on AWS, and how the last runs ended.",
        ("aws status", "aws status --stack trial --json"),
    ),
    "aws run": Entry(
        "runs the job and follows its log",
        "To land and build at once rather than at the next trigger.",
        ("aws run", "aws run --workers 10"),
    ),
    "aws cost": Entry(
        "estimates what a lake costs on AWS",
        "Before deploying: a model from measured times and list prices.",
        ("aws cost", "aws cost --customers 1000000 --runs 24"),
    ),
    "aws destroy": Entry(
        "deletes the stack",
        "To stop paying for a trial; the lake, its bucket and its keys stay unless --data is given.",
        ("aws destroy --stack trial", "aws destroy --stack trial --data"),
    ),
}
_EXAMPLE, _WIDE = 30, 80


def entry(name: str) -> Entry | None:
    """Returns the explanation of a command, or of an action by both its words."""
    return next((group[name] for group in GROUPS.values() if name in group), ACTIONS.get(name))


def ending(name: str) -> str:
    """Returns the text below a command's options: its purpose and examples."""
    found = entry(name)
    if found is None:
        return ""
    why = textwrap.fill(found.why, _WIDE - 2, initial_indent="  ", subsequent_indent="  ")
    shown = "\n".join(f"  stedi {example}" for example in found.examples)
    return f"\nwhy:\n{why}\n\nexamples:\n{shown}\n"


def overview(helps: Mapping[str, str]) -> str:
    """Returns the commands in groups, each with an example and a description.

    Args:
        helps: The description of each command, by name.
    """
    lines = []
    told = set[str]()
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"] if group.keys() & helps.keys() else []
        for name in filter(helps.__contains__, group):
            lines.append(f"    {group[name].examples[0]:{_EXAMPLE}}  {group[name].brief}")
            told.add(name)
    for name in sorted(helps.keys() - told):
        lines.append(textwrap.fill(f"{name:{_EXAMPLE}}  {helps[name]}", _WIDE, initial_indent="    "))
    return "\n".join(lines).lstrip("\n") + "\n"
