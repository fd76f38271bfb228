"""What concerns persons, from Python: consent withdrawn, explained and proved; erasure; and the key of pseudonyms."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from stedi import build as building
from stedi import destinations, durable, leftovers, s3
from stedi.engines import Name
from stedi.opened import Opened, Progress, milliseconds, writes
from stedi.privacy import handover, receipts, tombstones
from stedi.tables import ZONES

if TYPE_CHECKING:
    from stedi.explain import Explanation
    from stedi.landing.withdrawal import Withdrawal
    from stedi.privacy.audit import Proof
    from stedi.privacy.receipts import Receipt
    from stedi.privacy.risk import Risk
    from stedi.replay import Replay
    from stedi.rotation import Rotation


class Persons(Opened):
    """The verbs of a lake that concern persons."""

    @writes
    def withdraw(
        self,
        *addresses: str | Iterable[str],
        exact: bool = False,
        now: datetime | None = None,
        progress: Progress = lambda what, share: None,
    ) -> Withdrawal:
        """Lands a withdrawal from research of each of these customers; the next build takes them out.

        A record from the website that is newer and agrees again brings a customer back; an older one does not, whenever
        it arrives, and whether the lake knew the customer or not.

        Args:
            addresses: Their addresses, in any spelling of rule 1, one by one or in lists.
            exact: Take each as it was delivered, be it a plain address or not.
            now: When they withdraw; the clock's time by default.
            progress: Told what is being done and the share of it that is done.

        Returns:
            How many withdrawals were landed, and how many were there already.

        Raises:
            UsageError: An address is none; nothing was landed.
        """
        from stedi.landing import withdrawal

        at = None if now is None else milliseconds(now)
        asked = _taken(addresses, exact=exact)
        key = self.key()
        self._finish(progress)
        return withdrawal.withdraw(self.catalog, self.config, key, self.root, asked, now=at, progress=progress)

    def known(self, *addresses: str | Iterable[str], exact: bool = False) -> int:
        """Returns of how many of these customers the lake has a landed record.

        Args:
            addresses: As for `withdraw`.
            exact: As for `withdraw`.

        Raises:
            UsageError: An address is none.
        """
        from stedi.landing import withdrawal

        wanted = _taken(addresses, exact=exact)
        with self._temporary() as folder:
            return withdrawal.known(self.catalog, self.config, wanted, folder)

    def explain(self, address: str, *, exact: bool = False, now: datetime | None = None) -> Explanation:
        """Explains one customer: consent and its history, rows by table, and what is left out and why.

        Args:
            address: Whose, in any spelling; one that the lake does not know gets an answer of the same shape.
            exact: Take it as it was delivered, be it a plain address or not.
            now: The instant at which consent is asked for; the clock's time by default.

        Raises:
            UsageError: It is no address.
        """
        from stedi import explain

        [normal] = _taken([address], exact=exact)
        at, key = milliseconds(now or datetime.now(UTC)), self.key()
        handover.refuse_unfinished(self.root)
        with self._temporary() as folder:
            return explain.explain(self.catalog, self.config, key, self.root, normal, at, folder)

    def withheld(self) -> list[tuple[datetime, str, int, int]]:
        """Returns the readings of shared serial numbers that belong to nobody for certain (rule 6 of consent).

        Returns:
            Of each: time of the reading, serial number, distance, and how many claimants moved at that moment.
        """
        key = self.key()
        handover.refuse_unfinished(self.root)
        return building.withheld(self.catalog, self.config, key, durable.scratch(self.root))

    def prove(self, *, engine: Name = "duckdb", progress: Progress = lambda what, share: None) -> Proof:
        """Proves the rules of consent over the published tables, independently of how they were built.

        Each table is judged by the landed records, the clock and the policy that it was built from: landings that wait
        for a build break nothing. Changes nothing.

        Args:
            engine: With `spark` its executors do the work; only counts come to this machine.
            progress: Told what is looked at and the share of it that is done.

        Returns:
            How often each rule is broken, in each table, and where every record went.
        """
        from stedi.engines import opened
        from stedi.privacy import audit

        key = self.key()
        states, pending = self._pinned_with_landings()
        handover.refuse_other(self.root, self.config.key_fingerprint)
        temporary = durable.scratch(self.root) / f"audit-{secrets.token_hex(8)}"
        try:
            with opened(engine, self.config, self.root, temporary) as session:
                return audit.prove(
                    self.catalog,
                    key,
                    session,
                    now=int(datetime.now(UTC).timestamp() * 1000),
                    policy=building.policy(self.config),
                    states=states,
                    pending=pending,
                    besides=self._further_claimants(key),
                    progress=progress,
                )
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def risk(self) -> Risk:
        """Measures how many customers the training table would single out, by what somebody may know of them."""
        from stedi.engines.duckdb import DuckDB
        from stedi.privacy import risk

        config, temporary = self.config, durable.scratch(self.root) / f"risk-{secrets.token_hex(8)}"
        try:
            with DuckDB(memory=config.engine_memory, threads=config.threads, temporary=temporary) as engine:
                return risk.measure(engine, self.catalog)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @writes
    def rotate_key(
        self, to: str | os.PathLike[str] | None = None, *, progress: Progress = lambda what, share: None
    ) -> Rotation:
        """Gives the lake another pseudonym key: what is due is built, then every `customer_id` becomes another.

        Older snapshots are gone afterwards, so that nothing in the lake links old and new pseudonyms. Cut off
        anywhere, the lake is the old key's or the new one's: the next command that writes finishes what was decided.

        Args:
            to: The file of the new key, outside the lake; made if it is not there. By default the key of
                `STEDI_NEXT_PSEUDONYM_KEY`, or of a new file beside the usual place.
            progress: Told what is being done and the share of it that is done.

        Raises:
            KeyRefused: The lake's key is not at hand, or the new one cannot be had.
            AuditFailed: A table would break a rule under the new key; nothing was changed.
        """
        from stedi import rotation
        from stedi.landing import journal

        key = self.key()
        self._finish(progress)
        with durable.commands(self.root, durable.ALL, lambda what: progress(what, None)):
            handover.refuse_other(self.root, self.config.key_fingerprint)
            tombstones.refuse_unfinished(self.root)
            journal.finish(self.catalog, self.root / "pending", lambda: key)
            finish = partial(journal.finish, self.catalog, self.root / "pending", lambda: key)
            leftovers.sweep(self.catalog, tuple(ZONES), self.config.grace_hours * 3600, finish=finish)
            # the tables must be up to date: what they were built from is then what they would be built from
            building.build(self.catalog, self.config, key, self.root, progress=lambda line: progress(line, None))
            done = rotation.rotate(
                self.catalog,
                self.config,
                self.root,
                key,
                None if to is None else destinations.expanded(to),
                besides=self._further_claimants(key),
                progress=progress,
            )
        self.config = self.open(self.root).config
        return done

    @writes
    def erase(
        self,
        *addresses: str | Iterable[str],
        exact: bool = False,
        inbox: Sequence[str | os.PathLike[str]] = (),
        engine: Name = "duckdb",
        progress: Progress = lambda what, share: None,
    ) -> list[dict[str, Any]]:
        """Erases customers: everything of them leaves the lake and, if it is named, the inbox, and stays out.

        Args:
            addresses: Their addresses, in any spelling of rule 1, one by one or in lists; none only finishes an erasure
                that was cut off.
            exact: Take each as it was delivered, be it a plain address or not.
            inbox: Delivered files and folders to rewrite without them.
            engine: With `spark` its executors look through the tables' files, write them anew, and search every file.
            progress: Told what is being done and the share of it that is done.

        Returns:
            The receipts: of an erasure that was cut off and is finished now, if there was one, and of this one.

        Raises:
            UsageError: An address is none; nothing was erased.
            AuditFailed: Something in the lake still holds one of them; the message names the files.
        """
        from stedi import erasure

        wanted = _taken(addresses, exact=exact)

        places = [str(destinations.expanded(path)) for path in inbox]
        self._finish_rotation(progress)
        return erasure.erase(
            self.catalog,
            self.config,
            self.root,
            self.key(),
            wanted,
            delivered=places,
            recover=True,
            progress=progress,
            workers=self._workers(engine),
        )

    def replay(self, journal: str | os.PathLike[str], *, progress: Progress = lambda what, share: None) -> Replay:
        """Applies a journal to a lake that was restored or made anew: nobody who withdrew or was erased comes back.

        Args:
            journal: A folder, or prefix in S3, to which a lake with this key has copied its journal.
            progress: Told what is being done and the share of it that is done.

        Returns:
            What of it was new, and what was done.

        Raises:
            UsageError: There is no journal.
            LakeError: An entry is not what a lake with this key has written; nothing was changed.
        """
        from stedi import replay

        self.refuse_copied()
        place = destinations.expanded(s3.at(journal)).absolute()
        self._finish_rotation(progress)
        done = replay.replay(self.catalog, self.config, self.root, self.key(), place, progress=progress)
        self._set_back()
        return done

    def preview_erasure(self, *addresses: str | Iterable[str], exact: bool = False) -> dict[str, Any]:
        """Returns what an erasure would remove: `customers` known, `rows` and `files` by table; changes nothing."""
        from stedi import erasure

        self.refuse_copied()
        wanted = _taken(addresses, exact=exact)
        return erasure.preview(self.catalog, self.config, self.root, self.key(), wanted)

    def receipts(self) -> list[Receipt]:
        """Returns the receipts of all erasures, oldest first."""
        return receipts.listed(self.root)

    def verify_receipt(self, named: str) -> tuple[Receipt, bool]:
        """Returns a receipt, by its id or the path of its file, and whether this lake has signed it.

        Raises:
            UsageError: There is none.
        """
        receipt, key = receipts.find(self.root, named), self.key()
        return receipt, tombstones.vouches(self.root, key, self.config.lake_id, receipt)


def _taken(addresses: Sequence[str | Iterable[str]], *, exact: bool) -> tuple[str, ...]:
    """Returns the addresses that were given, one by one or in lists."""
    from stedi.privacy.addresses import of_values, taken  # its patterns take time to compile

    return taken(of_values(*addresses), exact=exact)
