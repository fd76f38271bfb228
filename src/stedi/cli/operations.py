"""The commands of maintenance and proofs: `audit`, `repair`, `adopt`, `key`, `tag`, `log`.

As in `pipeline`, each calls one function, prints what it returned, and returns the exit code.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from stedi.cli import render, reports, terminal
from stedi.cli.pipeline import open_lake, wants_json, where
from stedi.errors import FORBIDDEN, AuditFailed, UsageError, many

if TYPE_CHECKING:
    from stedi.audit.integrity import Check
    from stedi.audit.proof import Proof, Reconciliation
    from stedi.audit.risk import Risk
    from stedi.lake import Lake
    from stedi.operations.maintenance.tags import Tag


def audit(options: argparse.Namespace) -> int:
    """Checks the lake's files, then proves the rules of consent, and shows violations."""
    lake = open_lake(options)
    reports.refuse_name(options.report)
    with terminal.Progress() as progress:
        done = lake.full_audit(files=options.files, risk=options.risk, engine=options.engine, progress=progress)
    checks, proof, risk = done.checks, done.proof, done.record.risk
    violations = sum(check.violations for check in checks)
    if options.report is not None:
        reports.write_audit(lake, done, options.report)
    if wants_json(options):
        terminal.document(
            {
                **({"risk": _risk_json(risk)} if risk else {}),
                "holds": not violations,
                "proved": proof is not None,
                "checks": [_check_json(check) for check in checks],
                "accounts": [_account_json(account) for account in proof.accounts] if proof else [],
                "due": list(proof.due) if proof else [],
                "unseen": proof.unseen if proof else 0,
            }
        )
    else:
        if risk:
            _show_risk(risk)
        _show_audit(checks, proof)
    return AuditFailed.exit_code if violations else 0


def log(options: argparse.Namespace) -> int:
    """Lists who was shown rows of people."""
    found = open_lake(options).log(options.since)
    if wants_json(options):
        listed = [
            {**render.plain(each), "tables": {name: render.identified(id_) for name, id_ in each.tables.items()}}
            for each in found
        ]
        terminal.document({"accesses": listed})
        return 0
    terminal.table(
        ("time", "user", "role", "what", "tables", "people", "rows", "ended"),
        [
            (
                render.moment(each.time),
                *(each.user, each.role, each.verb, ", ".join(each.tables)),
                *("" if count is None else count for count in (each.people, each.rows)),
                each.ended,
            )
            for each in found
        ],
        ("ended", "people"),
    )
    return 0


def _show_audit(checks: tuple[Check, ...], proof: Proof | None) -> None:
    for account in proof.accounts if proof else ():
        *lines, (what, rows) = account.lines
        parts = [line for line in lines if line[1] or line is lines[0]]
        terminal.table((account.table, "rows"), [*parts, (f"= {what}", rows)])
        terminal.line("")
    for check in checks:
        if check.name == "newest" and check.found:
            terminal.line(
                "the lake was rolled back: withdrawals or erasures may be undone; see docs/operations.md on recovery"
            )
        for found in check.found:
            terminal.line(f"{check.name}: {check.table}: {found.file}: expected {found.expected}, found {found.found}")
        if check.rows:
            terminal.line(f"{check.name}: {check.table}: expected no violations, found {check.rows:,}")
    if proof is None:
        closed = any(found.found == FORBIDDEN for check in checks for found in check.found)
        why = "this user may not read all files" if closed else "files are damaged: run `stedi repair`"
        terminal.line(f"the rules of consent were not proved because {why}")
    elif proof.due:
        terminal.line(f"a build is due; these tables are judged by their recorded inputs: {', '.join(proof.due)}")
    if proof and proof.unseen:
        terminal.line(f"customers whose address has an invisible character: {proof.unseen:,}; name them with --exact")
    held, violations = sum(not check.violations for check in checks), sum(check.violations for check in checks)
    terminal.line(f"{held:,} of {len(checks):,} checks hold; {many(violations, 'violation')}")


def _show_risk(risk: Risk) -> None:
    terminal.line(f"machine_learning_curated: {risk.customers:,} customers, {many(risk.rows, 'row')}; singled out:")
    terminal.table(
        ("if known", "resolution", "by a row", "by all", "smallest"),
        [(e.known, e.resolution, e.by_one, e.by_all, e.smallest) for e in risk.exposures],
    )
    terminal.line("The table is pseudonymous, not anonymous: treat it as personal data.\n")


def _risk_json(risk: Risk) -> dict[str, object]:
    return {
        "table": "machine_learning_curated",
        "customers": risk.customers,
        "rows": risk.rows,
        "exposures": [
            {
                "known": e.known,
                "resolution": e.resolution,
                "singled_out_by_one_row": e.by_one,
                "singled_out_by_all_rows": e.by_all,
                "smallest_group": e.smallest,
            }
            for e in risk.exposures
        ],
    }


def _account_json(account: Reconciliation) -> dict[str, object]:
    return {"table": account.table, "lines": [{"what": what, "rows": rows} for what, rows in account.lines]}


def _check_json(check: Check) -> dict[str, object]:
    plain: dict[str, object] = {"name": check.name, "table": check.table, "violations": check.violations}
    return {**plain, "found": render.plain(check.found)} if check.found else plain


def adopt(options: argparse.Namespace) -> int:
    """Makes a copied or moved lake writable."""
    from stedi.lake import Lake

    with terminal.Progress() as progress:
        done = Lake.adopt(where(options), new_id=options.new_id, progress=progress)
    if wants_json(options):
        terminal.document(
            {"lake": str(done.root), "home": str(done.home), "id": done.lake_id, "was": done.was, "key": done.key}
        )
    elif done.home == done.root:
        terminal.line(f"{done.root} is a separate lake already")
    else:
        same = "its id stays" if done.lake_id == done.was else f"its id is {done.lake_id}, that of the other {done.was}"
        terminal.line(f"{done.root} is now a separate lake; its tables were in {done.home}\n{same}\nkey  {done.key}")
    return 0


def repair(options: argparse.Namespace) -> int:
    """Sets right what an audit finds damaged, as far as the lake itself can."""
    with terminal.Progress() as progress:
        repaired = open_lake(options).repair(accept_rollback=options.accept_rollback, progress=progress)
    if wants_json(options):
        plain = {"catalog": repaired.catalog, "forgotten": repaired.forgotten, "renewed": repaired.renewed}
        plain["tags"] = repaired.tags
        terminal.document({**plain, "build": render.plain(repaired.build)})
        return 0
    for name in repaired.catalog:
        terminal.line(f"{name}: restored to its last published state in the catalog")
    for name, count in repaired.forgotten.items():
        terminal.line(f"{name}: {count:,} older snapshots were removed with their damaged files")
    for name in repaired.renewed:
        terminal.line(f"{name}: rebuilt; its older snapshots were removed")
    if repaired.tags:
        terminal.line(f"tags of damaged files were removed: {', '.join(repaired.tags)}")
    if not (repaired.catalog or repaired.forgotten or repaired.renewed):
        terminal.line("nothing to repair: every file is as it was written")
    return 0


def key(options: argparse.Namespace) -> int:
    """Shows which key the lake has, or gives it another."""
    if options.action == "show" and (options.to or options.yes):
        raise UsageError("key show: expected neither --to nor --yes, which are of `stedi key rotate`, found one")
    lake = open_lake(options)
    if options.action == "show":
        from stedi.privacy import signatures

        found = {
            "fingerprint": lake.key().fingerprint,
            "key": lake.context.key_place(),
            "earlier": len(lake.key().earlier),
            "signs_as": signatures.fingerprint(signatures.public_key(lake.key())),
        }
        if wants_json(options):
            terminal.document(found)
        else:
            labels = {"earlier": "earlier keys", "signs_as": "signs as"}
            terminal.line("\n".join(f"{labels.get(name, name):<12} {value}" for name, value in found.items()))
        return 0
    lake.key()  # refused before the question
    if not options.yes:
        _ask_to_rotate(lake)
    with terminal.Progress() as progress:
        done = lake.rotate_key(options.to, progress=progress)
    if wants_json(options):
        tables = [{"name": name, "rows": rows} for name, rows in done.rows.items()]
        plain = {"before": done.before, "fingerprint": done.after, "key": done.key_file, "tables": tables}
        terminal.document({**plain, "tags": list(done.tags)})
    else:
        terminal.table(("table", "rows under the new key"), list(done.rows.items()))
        terminal.line(f"\nkey {done.after} replaces {done.before}; it is in {done.key_file or 'the environment'}")
        if done.tags:
            terminal.line(f"removed tags: {', '.join(done.tags)}")
        terminal.line(
            "Back up the new key. Older snapshots were removed; backups and exports still have the old pseudonyms."
        )
    stale = [variable for variable in ("STEDI_PSEUDONYM_KEY", "STEDI_KEY_FILE") if variable in os.environ]
    for variable in stale:
        terminal.say(
            f"{variable} still names the old key unless you have changed it: set it to the new one, or unset it"
        )
    return 0


def _ask_to_rotate(lake: Lake) -> None:
    """Asks on the terminal to confirm the key change, and names the tags that end."""

    def question() -> str:
        tags = lake.ended_by_rotation()
        end = f"These tags and branches are removed, too: {', '.join(tags)}." if tags else "No tag is removed."
        what = "Every customer_id changes, and older snapshots of the tables below landing are removed."
        return f"{what} {end} Type yes:"

    alone = (
        "key rotate: expected --yes or a terminal to ask, since older snapshots and tags of the tables below "
        "landing are removed; found neither; nothing was changed"
    )
    if not terminal.confirmed(question, alone=alone, agreeing=("yes",)):
        raise UsageError("key rotate: expected yes, found another answer; nothing was changed")


def tag(options: argparse.Namespace) -> int:
    """Tags the current tables below landing, deletes a tag, or lists all."""
    if options.name is not None and options.delete is not None:
        raise UsageError("tag: expected a new name or --delete, found both; nothing was changed")
    lake = open_lake(options)
    if options.name is None and options.delete is None:
        tags = lake.tags()
        if wants_json(options):
            terminal.document({"tags": [_tag_json(found) for found in tags]})
        else:
            headers = ("tag", "time", "table", "snapshot")
            rows = [
                (found.name, render.moment(found.time), table, str(snapshot))
                for found in tags
                for table, snapshot in found.snapshots.items()
            ]
            terminal.table(headers, rows)
        return 0
    with terminal.Progress() as progress:
        if options.delete is None:
            done = lake.tag(options.name, progress=progress)
        else:
            done = lake.untag(options.delete, progress=progress)
    if wants_json(options):
        terminal.document(_tag_json(done))
    elif options.delete is not None:
        terminal.line(f"{done.name} was deleted; the next maintenance removes what only this tag kept")
    else:
        terminal.line(f"{done.name} names {many(len(done.snapshots), 'table')} as of {render.moment(done.time)}")
    return 0


def _tag_json(found: Tag) -> dict[str, object]:
    return {
        "name": found.name,
        "time": render.instant(found.time),
        "snapshots": {name: str(snapshot) for name, snapshot in found.snapshots.items()},
    }
