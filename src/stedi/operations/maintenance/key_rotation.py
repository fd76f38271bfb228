"""Key rotation: replaces the pseudonym key, and with it every `customer_id` below landing.

Stage, prove, decide, publish, remove. All tables are staged under the new key and the independent proof is run over
what is staged; then a note (`privacy.key_change`) decides the change, and publishing, settings and the removal of every
older snapshot follow, by this process or by the next that writes. The caller keeps landings, builds and maintenance
away.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from stedi._frozen import dataclass, replace
from stedi.audit import proof as consent_proof
from stedi.catalog import Catalog, TableState
from stedi.catalog.orphans import unused
from stedi.context import Context
from stedi.context.progress import Progress, run_id, silent
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed, CommitConflict, KeyRefused, many
from stedi.operations.maintenance.tags import ended_by_rotation
from stedi.privacy import key_change, pseudonyms, secrets_manager, tombstones
from stedi.privacy.key_change import PendingRotation
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import ZONES, DataFile
from stedi.storage import config as settings
from stedi.storage import durable
from stedi.transform import policy
from stedi.transform.planning import CLAIMS

_BELOW = tuple(name for name, zone in ZONES.items() if zone != "landing")


@dataclass(frozen=True, slots=True)
class Rotation:
    """The result of a key rotation.

    Attributes:
        before: The fingerprint of the old key.
        after: The fingerprint of the new key.
        key_file: The new key's file; empty for the environment or the usual place.
        rows: Rows of each table whose `customer_id` was replaced.
        tags: Removed tags and branches, which named tables with the old pseudonyms.
    """

    before: str
    after: str
    key_file: str
    rows: Mapping[str, int]
    tags: tuple[str, ...] = ()


def new_key(context: Context, key: Key, to: Path | None) -> tuple[Key, str, Path | None]:
    """Returns the next key, created if needed.

    Args:
        context: The lake.
        key: The lake's key now.
        to: The file of the new key; without it `STEDI_NEXT_PSEUDONYM_KEY`, then a new file beside the usual one.

    Returns:
        The key, the file to remember, and that file if it was made now.

    Raises:
        KeyRefused: It lies in the lake, cannot be made, is no other key, or does not remember the keys before it.
    """
    root = context.root
    given = None if to else pseudonyms.from_environment(variable=pseudonyms.NEXT)
    if given is not None:
        found, file, made = given, settings.read(root / "lake.toml", {}).key_file, None
    elif to and secrets_manager.names(str(to)):
        file, made = str(to), None
        found = secrets_manager.read(file) if secrets_manager.exists(file) else secrets_manager.make(file, key.every())
    else:
        usual = pseudonyms.default_file(context.config.lake_id)
        path = to.absolute() if to else usual.with_name(f"{usual.stem}-{secrets.token_hex(4)}{usual.suffix}")
        if path.resolve().is_relative_to(root.resolve()):
            raise KeyRefused(f"pseudonym key {path}: expected a path outside the lake, found one in it; name another")
        made = None if path.exists() else path
        found = pseudonyms.make(path, key.every()) if made else pseudonyms.from_file(path)
        file = str(path)
    found = found.of_version(key.version)
    # what was sealed under a key that is not remembered could never be checked again
    if not found.follows(key):
        raise KeyRefused(
            f"{pseudonyms.NEXT if given else file}: expected a new key, followed on separate lines by the lake's "
            "key and its earlier keys, which receipts and tombstones need, found something else; nothing was "
            "changed"
        )
    return found, file, made


def rotate(
    context: Context,
    key: Key,
    to: Path | None,
    *,
    progress: Progress = silent,
) -> Rotation:
    """Changes the lake's key; every table must be up to date.

    Args:
        context: The lake.
        key: Its current key.
        to: As for `new_key`.
        progress: Called with the current step and its completed share.

    Raises:
        KeyRefused: The new key cannot be read or created.
        AuditFailed: What was staged breaks a rule; nothing was changed.
    """
    root = context.root
    new, file, made = new_key(context, key, to)
    ended = ended_by_rotation(context.catalog)
    work = _Run(context, key, new)
    try:
        decided = work.stage(file, progress)
        # decides: from here on the lake has the new key, whatever ends this process
        key_change.write(root, new, decided)
    except BaseException:
        work.discard()
        if made and not (root / key_change.NAME).exists():
            made.unlink(missing_ok=True)
        raise
    if not finish(context, progress):
        work.discard()
        if made:
            made.unlink(missing_ok=True)
        raise CommitConflict(
            f"{root}: cannot change the key: a table has changed meanwhile; nothing was changed: run it again"
        )
    return Rotation(key.fingerprint, new.fingerprint, file, work.rows, ended)


def finish(context: Context, progress: Progress = silent) -> bool:
    """Finishes the key rotation that is decided, if there is one; doing so twice changes nothing.

    Returns:
        False if it came too late: others have changed tables since they were staged, and none of it was published. Then
        nothing of it is done.
    """
    catalog, root = context.catalog, context.root
    key_change.remove_leftovers(root)
    decided = key_change.pending(root)
    if decided is None:
        return True
    if _is_overtaken(catalog, decided):
        key_change.end(root)
        return False
    for name, staged in decided.staged.items():
        # unless a process that died has published it
        if not any(snapshot.id == staged for snapshot in catalog.table(name).history()):
            progress(f"publish {name}", None)
            catalog.publish(name, branch=decided.run, staged=staged, base=decided.base[name])
    file = root / "lake.toml"
    stored = settings.read(file, {})
    # after the tables: until the settings follow, the note says which key the lake has
    if stored.key_fingerprint != decided.fingerprint:
        changed = settings.changed(stored, key_fingerprint=decided.fingerprint, key_file=decided.key_file)
        settings.write(changed, file)
    for name in _BELOW:
        progress(f"remove {name} under the old key", None)
        _remove_history(catalog, name)
    key_change.end(root)
    return True


def _is_overtaken(catalog: Catalog, decided: PendingRotation) -> bool:
    """Returns whether a key rotation of which nothing is published can be published no more.

    So it is where its note was written by a process that was stopped right before, for longer than its lease.
    """
    states = {name: catalog.table(name) for name in decided.staged}
    if any(snapshot.id == decided.staged[name] for name, state in states.items() for snapshot in state.history()):
        return False
    return any(
        state.branches.get(decided.run) != decided.staged[name]
        or (state.current is not None and state.current.id != decided.base[name])
        for name, state in states.items()
    )


def _remove_history(catalog: Catalog, name: str) -> None:
    """Drops every snapshot of a table except the current one, with their files."""
    state = catalog.table(name)
    current = state.current
    old = [s.id for s in state.snapshots if current is None or s.id != current.id]
    if current is not None and old:
        catalog.expire(name, old, base=current.id)  # branches and tags that point to one of them are dropped, too
        state = catalog.table(name)
    now = time.time()
    durable.remove_all(file.path for file in unused(state, catalog.folder(name), before=now, seen=now))
    catalog.prune(name)


class _Run:
    """One key rotation until it is decided."""

    def __init__(self, context: Context, key: Key, new: Key) -> None:
        self.id = run_id()
        self.rows: dict[str, int] = {}
        self._further_claimants = context.further_claimants(key)
        known = tombstones.read(context.root, key)
        self._claims = known.claims_digest(key), known.claims_digest(new)
        self._catalog, self._config, self._root = context.catalog, context.config, context.root
        self._key, self._new = key, new

    def stage(self, file: str, progress: Progress) -> PendingRotation:
        """Rewrites every table to its branch, and proves the rules over the staged tables.

        Raises:
            AuditFailed: A table would break a rule, or lose a row.
        """
        catalog = self._catalog
        states = catalog.tables()
        built = [name for name in _BELOW if (c := states[name].current) and "stedi.inputs" in c.summary]
        staged: dict[str, int] = {}
        with durable.workspace(self._root) as temporary:
            files = self._write(states, built, temporary, progress)
            after = settings.changed(self._config, key_fingerprint=self._new.fingerprint)
            for name in built:
                staged[name] = self._commit(states[name], files[name], staged, policy(after))
            self._prove(staged, temporary, policy(after), progress)
        base = {name: state.current.id for name, state in states.items() if name in staged and state.current}
        return PendingRotation(self.id, self._new.fingerprint, file, base, staged)

    def discard(self) -> None:
        """Removes the staged files, unless the change is decided."""
        if (self._root / key_change.NAME).exists():
            return
        for name in _BELOW:
            with suppress(Exception):  # a failed clean-up must not hide why the work failed
                self._catalog.discard(name, self.id)
                durable.remove_tree(self._folder(name))

    def _folder(self, name: str) -> Path:
        return self._catalog.folder(name) / "data" / self.id

    def _write(
        self, states: Mapping[str, TableState], built: list[str], temporary: Path, progress: Progress
    ) -> dict[str, tuple[DataFile, ...]]:
        files = dict[str, tuple[DataFile, ...]]()
        with DuckDB.of(self._config, temporary) as engine:
            for name in ("customers_landing", *built):
                engine.bind_files(name, self._catalog.files(states[name]))
            engine.map_rows(
                "renamed",
                "select distinct email as address from customers_landing",
                {"old": "varchar", "new": "varchar"},
                lambda address: (self._key.customer_id(address), self._new.customer_id(address)),
            )
            # rows are sorted by the place of their new pseudonym, since numbers are sorted sooner than texts
            engine.materialize(
                "renaming", "select old, new, number(new) as place from (select distinct old, new from renamed)"
            )
            for number, name in enumerate(built):
                progress(f"rewrite {name}, {number + 1} of {len(built)}", number / len(built))
                files[name] = engine.write(
                    name,
                    f"select t.* replace (r.new as customer_id) from {name} as t join renaming as r "
                    "on t.customer_id = r.old order by r.place, 2",
                    self._folder(name),
                )
                self.rows[name] = sum(file.rows for file in files[name])
                # a row whose customer has no landed record would fall out of the join
                [(before,)] = engine.rows(f"select count(*) from {name}")
                if self.rows[name] != before:
                    raise AuditFailed(
                        f"{name}: expected {many(before, 'row')} of landed customers, found {self.rows[name]:,}; "
                        "nothing was changed: run `stedi audit`"
                    )
        return files

    def _commit(self, state: TableState, files: tuple[DataFile, ...], staged: Mapping[str, int], policy: str) -> int:
        """Commits a table's rows to its branch; its lineage is also valid for the new rows."""
        current = state.current
        assert current is not None, "only built tables are staged"
        lineage = {name: value for name, value in current.summary.items() if name.startswith("stedi.")}
        lineage.pop("stedi.maintained", None)
        inputs = {**json.loads(lineage["stedi.inputs"])}
        # the inputs are the staged ones, too: otherwise the next build would find all of them changed
        inputs.update({name: staged[name] for name in inputs if name in staged})
        was, now = self._claims
        if lineage.get(CLAIMS, "") == was:  # any other stays, so that the next build finds it and rebuilds the table
            lineage |= {CLAIMS: now} if now else {}
        lineage |= {
            "stedi.run": self.id,
            "stedi.action": "rotate",
            "stedi.policy": policy,
            "stedi.inputs": json.dumps(inputs, sort_keys=True),
        }
        leaving = [file.path for file in self._catalog.files(state)]
        return self._catalog.stage(state.name, files, leaving, lineage, branch=self.id, base=current.id)

    def _prove(self, staged: Mapping[str, int], temporary: Path, policy: str, progress: Progress) -> None:
        states = self._catalog.tables()
        for name, snapshot_id in staged.items():
            states[name] = _at(states[name], snapshot_id)
        with DuckDB.of(self._config, temporary) as engine:
            proof = consent_proof.prove(
                self._catalog,
                self._new,
                engine,
                now=int(time.time() * 1000),
                policy=policy,
                states=states,
                further_claimants=self._further_claimants,
                progress=progress,
            )
        broken = [f"{check.name} of {check.table}" for check in proof.checks if check.violations]
        if broken:
            raise AuditFailed(
                f"under the new key: {', '.join(broken)}: expected no violations, found some; nothing was changed: "
                "run `stedi audit`"
            )


def _at(state: TableState, snapshot_id: int) -> TableState:
    """Returns a table as it will be when one of its snapshots is published."""
    return replace(state, current=state.snapshot(snapshot_id))
