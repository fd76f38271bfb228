"""Descriptions of tables and columns, defined only here.

Iceberg's column docs, the comments of DDL, the report's page, `stedi describe`, data contracts and the manifests of
training sets use these texts; `tests/integration/test_descriptions.py` checks that they all agree.
"""

from __future__ import annotations

from stedi._frozen import dataclass
from stedi.errors import UsageError, printable
from stedi.schema.contracts import Kind, PrivacyClass
from stedi.schema.feeds import CONTRACTS
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES, REQUIRED, graph


@dataclass(frozen=True, slots=True)
class Description:
    """What a column means.

    Attributes:
        text: The meaning in a few words.
        unit: The unit of its values; empty for a text or a count.
    """

    text: str
    unit: str = ""

    @property
    def comment(self) -> str:
        """Text and unit on one line, as catalogs store them."""
        return f"{self.text} ({self.unit})" if self.unit else self.text


@dataclass(frozen=True, slots=True)
class DescribedColumn:
    """A column with its complete description.

    Attributes:
        name: Its name.
        type: Its Iceberg type.
        text: What it means.
        unit: The unit of its values; empty for a text or a count.
        privacy: What it reveals about a person.
        required: Whether every row has a value.
    """

    name: str
    type: str
    text: str
    unit: str
    privacy: PrivacyClass
    required: bool


@dataclass(frozen=True, slots=True)
class DescribedTable:
    """A table with all that the schema defines about it.

    Attributes:
        name: Its name.
        zone: Its zone.
        text: What its rows are.
        key: The columns that identify a row; empty if rows may be equal.
        inputs: The tables that it is built from; empty if a build does not make it.
        columns: Its columns, in order.
    """

    name: str
    zone: str
    text: str
    key: tuple[str, ...]
    inputs: tuple[str, ...]
    columns: tuple[DescribedColumn, ...]


_MS, _UTC = "ms since 1970-01-01 UTC", "UTC"
_APP, _DEVICE = "as the app delivers it", "as the device delivers it"

_EVERYWHERE = {
    "customer_id": Description("pseudonym of the customer, made with the secret key of the lake"),
    "customerName": Description("name of the customer"),
    "email": Description("email address of the customer"),
    "phone": Description("telephone number of the customer"),
    "birthDay": Description("date of birth of the customer, as delivered"),
    "serialNumber": Description("serial number of the step trainer"),
    "registrationDate": Description("time at which the customer registered", _MS),
    "lastUpdateDate": Description("time of the last change to the customer record", _MS),
    "shareWithResearchAsOfDate": Description("start of the consent to research", _MS),
    "shareWithPublicAsOfDate": Description("start of the consent to publication", _MS),
    "shareWithFriendsAsOfDate": Description("start of the consent to sharing with friends", _MS),
    "user": Description("email address of the customer whose phone took the reading"),
    "timestamp": Description("time of the reading by the phone", _MS),
    "x": Description("acceleration along the x axis of the phone", _APP),
    "y": Description("acceleration along the y axis of the phone", _APP),
    "z": Description("acceleration along the z axis of the phone", _APP),
    "sensorReadingTime": Description("time of the reading by the step trainer", _MS),
    "distanceFromObject": Description("distance of the object in front of the sensor", _DEVICE),
    "_extra": Description("unknown fields and unusable values of the record, as JSON"),
    "_file": Description("SHA-256 of the delivered file"),
    "feed": Description("feed of the file: customer, accelerometer or step_trainer"),
    "file": Description("name of the delivered file"),
    "sha256": Description("SHA-256 of the delivered file"),
    "offset": Description("position of the record in the file", "bytes"),
    "line": Description("line of the file on which the record begins"),
    "reason": Description("reason code for which the record was refused"),
    "raw": Description("bytes of the record, as delivered"),
    "raw_size": Description("size of the record", "bytes"),
    "batch": Description("id of the landing that brought it"),
    "landed_at": Description("time of the landing", _UTC),
    "name": Description("name of the delivered file"),
    "size": Description("size of the delivered file", "bytes"),
    "seen": Description("records in the file"),
    "accepted": Description("records that were landed"),
    "quarantined": Description("records that went to quarantine"),
    "erased": Description("records of erased customers, dropped"),
    "release": Description("the release, NAME@VERSION"),
    "version": Description("version of the release"),
    "path": Description("folder of the release"),
    "purpose": Description("purpose of the release: research or public"),
    "recipient": Description("recipient of the release"),
    "subjects": Description("people in the release"),
    "rows": Description("rows in the release"),
    "manifest": Description("manifest of the release, as JSON"),
    "manifest_sha256": Description("SHA-256 of the manifest as it was made"),
    "released_at": Description("time of the release", _UTC),
    "subject": Description("id of a person, valid in that release alone"),
    "split": Description("split of the person: train, validation or test"),
    "what": Description("kind of event"),
    "text": Description("details of the event"),
    "noted_at": Description("time of the event", _UTC),
}
_OF_TABLE = {
    ("releases", "name"): Description("name of the training set"),
    ("release_subjects", "rows"): Description("rows of this person in the release"),
    ("release_events", "subject"): Description("the person concerned, by the id in that release"),
    **{
        (table, "birthDay"): Description("date of birth of the customer; null where what was delivered is no date")
        for table in ("customers_trusted", "customers_curated")
    },
}

TABLES: dict[str, str] = {
    "customers_landing": "every good customer record, as the website delivers it",
    "accelerometer_landing": "every good accelerometer record, as the app delivers it",
    "step_trainer_landing": "every good step trainer record, as the device delivers it",
    "quarantine": "every record that was refused, with its place, its reason and its bytes",
    "landed_files": "one row for each file that was landed, with its counts",
    "customers_trusted": "the current record of each customer who consents to research",
    "accelerometer_trusted": "distinct accelerometer readings of customers who consent to research",
    "customers_curated": "trusted customers who have accelerometer readings",
    "step_trainer_trusted": "distinct step trainer readings that belong to curated customers",
    "machine_learning_curated": (
        "each trusted step trainer reading with the accelerometer readings of the same customer and timestamp"
    ),
    "releases": "one row for each training set that was released",
    "release_subjects": "the people in each release, by ids of that release alone",
    "release_events": "what has happened to releases: models, recalls, deletions",
}
"""A description of the rows of each table."""

_KEYS: dict[str, tuple[str, ...]] = {
    "customers_trusted": ("customer_id",),
    "accelerometer_trusted": tuple(column.name for column in ALL_COLUMNS["accelerometer_trusted"]),
    "customers_curated": ("customer_id",),
    "step_trainer_trusted": ("serialNumber", "sensorReadingTime", "distanceFromObject"),
    "releases": ("release",),
    "release_subjects": ("release", "subject"),
}
"""The keys that builds and releases keep unique."""


def describe(table: str, column: str) -> Description:
    """Returns the meaning of a column of a table; below landing, instants are timestamps in UTC."""
    found = _OF_TABLE.get((table, column)) or _EVERYWHERE[column]
    kinds = {known.name: known.type for known in ALL_COLUMNS[table]}
    return Description(found.text, _UTC) if found.unit == _MS and kinds[column] == "timestamptz" else found


def describe_field(feed: str, field: str) -> Description:
    """Returns the meaning of a field of a feed, with the unit in which it is delivered."""
    found = _EVERYWHERE[field]
    contract = CONTRACTS[feed].field(field)
    return Description(found.text, _MS) if contract is not None and contract.kind is Kind.INSTANT else found


def comments(table: str) -> dict[str, str]:
    """Returns the comment of each column of a table, by the column's name."""
    return {column.name: describe(table, column.name).comment for column in ALL_COLUMNS[table]}


def named(table: str) -> str:
    """Returns the lake's spelling of a table's name, ignoring case.

    Raises:
        UsageError: There is no such table.
    """
    found = next((name for name in ALL_COLUMNS if name.lower() == table.lower()), None)
    if found is None:
        import difflib

        close = difflib.get_close_matches(table.lower(), ALL_COLUMNS, n=1, cutoff=0.5)
        known = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(ALL_COLUMNS)}"
        raise UsageError(f"no table {printable(table[:80])}: {known}")
    return found


def describe_table(table: str) -> DescribedTable:
    """Returns all that the schema defines about a table, without reading rows.

    Args:
        table: One of `ALL_COLUMNS`.
    """
    from stedi.schema import classification

    models, classes = graph(), classification.classes(graph(), table)
    required = REQUIRED.get(table, frozenset())
    columns = []
    for column in ALL_COLUMNS[table]:
        name, found = column.name, describe(table, column.name)
        columns.append(
            DescribedColumn(name, column.type, found.text, found.unit, classes[name], required=name in required)
        )
    inputs = models.inputs(table) if table in models.selects else ()
    return DescribedTable(table, ALL_ZONES[table], TABLES[table], _KEYS.get(table, ()), inputs, tuple(columns))
