"""What each column means, in a sentence for people, and the unit of its values."""

from __future__ import annotations

from dataclasses import dataclass

from stedi.schema.tables import ALL_COLUMNS


@dataclass(frozen=True, slots=True)
class Description:
    """What a column means.

    Attributes:
        text: In a few words.
        unit: Of its values; empty for a text or a count.
    """

    text: str
    unit: str = ""


_MS, _UTC = "ms since 1970-01-01 UTC", "UTC"

_EVERYWHERE = {
    "customer_id": Description("pseudonym of the customer, made with the lake's secret key"),
    "customerName": Description("the customer's name"),
    "email": Description("the customer's address"),
    "phone": Description("the customer's telephone number"),
    "birthDay": Description("the customer's date of birth, as delivered"),
    "serialNumber": Description("serial number of the step trainer"),
    "registrationDate": Description("when the customer registered", _MS),
    "lastUpdateDate": Description("when the customer's record was last changed", _MS),
    "shareWithResearchAsOfDate": Description("since when the customer agrees to research", _MS),
    "shareWithPublicAsOfDate": Description("since when the customer agrees to publication", _MS),
    "shareWithFriendsAsOfDate": Description("since when the customer shares with friends", _MS),
    "user": Description("address of the customer whose phone took the reading"),
    "timestamp": Description("when the phone took the reading", _MS),
    "x": Description("acceleration along the phone's x axis", "as the phone's app delivers it"),
    "y": Description("acceleration along the phone's y axis", "as the phone's app delivers it"),
    "z": Description("acceleration along the phone's z axis", "as the phone's app delivers it"),
    "sensorReadingTime": Description("when the step trainer took the reading", _MS),
    "distanceFromObject": Description("distance of the object in front of the sensor", "as the device delivers it"),
    "_extra": Description("fields that no contract knows, and values that could not be used, as JSON"),
    "_file": Description("SHA-256 of the delivered file"),
    "feed": Description("customer, accelerometer or step_trainer"),
    "file": Description("name of the delivered file"),
    "sha256": Description("SHA-256 of the delivered file"),
    "offset": Description("where the record begins in the file", "bytes"),
    "line": Description("line of the file on which it begins"),
    "reason": Description("why the record could not be taken"),
    "raw": Description("the record's bytes as delivered"),
    "raw_size": Description("size of the record", "bytes"),
    "batch": Description("the landing that brought it"),
    "landed_at": Description("when it was landed", _UTC),
    "name": Description("name of the delivered file"),
    "size": Description("size of the delivered file", "bytes"),
    "seen": Description("records in the file"),
    "accepted": Description("records that were landed"),
    "quarantined": Description("records that went to quarantine"),
    "erased": Description("records of erased customers, dropped"),
    "release": Description("the release, NAME@VERSION"),
    "version": Description("its version"),
    "path": Description("the release's folder"),
    "purpose": Description("research or public"),
    "recipient": Description("for whom the release was made"),
    "subjects": Description("people in the release"),
    "rows": Description("rows in the release"),
    "manifest": Description("the release's manifest, JSON"),
    "manifest_sha256": Description("SHA-256 of the manifest as it was made"),
    "released_at": Description("when it was made", _UTC),
    "subject": Description("id of a person in that release alone"),
    "split": Description("train, validation or test"),
    "what": Description("what happened to the release"),
    "text": Description("what more there is to say of it"),
    "noted_at": Description("when it happened", _UTC),
}
_OF_TABLE = {
    ("releases", "name"): Description("name of the training set"),
    ("release_subjects", "rows"): Description("rows of this person in the release"),
    ("release_events", "subject"): Description("whom it concerns, by the id in that release"),
}


def describe(table: str, column: str) -> Description:
    """Returns what a column of a table means; below landing instants are timestamps in UTC."""
    found = _OF_TABLE.get((table, column)) or _EVERYWHERE[column]
    kinds = {known.name: known.type for known in ALL_COLUMNS[table]}
    return Description(found.text, _UTC) if found.unit == _MS and kinds[column] == "timestamptz" else found
