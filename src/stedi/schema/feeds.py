"""The contracts of the three feeds, with the fields that the website, the app and the devices deliver."""

from __future__ import annotations

from stedi.schema.contracts import Contract, Field, Kind, PrivacyClass

CUSTOMER = Contract(
    feed="customer",
    table="customers_landing",
    fields=(
        Field("customerName", Kind.TEXT, required=False, privacy=PrivacyClass.DIRECT),
        Field("email", Kind.TEXT, privacy=PrivacyClass.DIRECT, names_customer=True),
        Field("phone", Kind.TEXT, required=False, privacy=PrivacyClass.DIRECT),
        Field("birthDay", Kind.TEXT, required=False, privacy=PrivacyClass.DIRECT),
        Field("serialNumber", Kind.TEXT, privacy=PrivacyClass.INDIRECT),
        Field("registrationDate", Kind.INSTANT, privacy=PrivacyClass.INDIRECT),
        Field("lastUpdateDate", Kind.INSTANT, privacy=PrivacyClass.INDIRECT),
        Field("shareWithResearchAsOfDate", Kind.INSTANT, required=False, privacy=PrivacyClass.INDIRECT),
        Field("shareWithPublicAsOfDate", Kind.INSTANT, required=False, privacy=PrivacyClass.INDIRECT),
        Field("shareWithFriendsAsOfDate", Kind.INSTANT, required=False, privacy=PrivacyClass.INDIRECT),
    ),
)

ACCELEROMETER = Contract(
    feed="accelerometer",
    table="accelerometer_landing",
    fields=(
        Field("user", Kind.TEXT, privacy=PrivacyClass.DIRECT, names_customer=True),
        Field("timestamp", Kind.INSTANT, privacy=PrivacyClass.SENSOR),
        Field("x", Kind.NUMBER, privacy=PrivacyClass.SENSOR),
        Field("y", Kind.NUMBER, privacy=PrivacyClass.SENSOR),
        Field("z", Kind.NUMBER, privacy=PrivacyClass.SENSOR),
    ),
)

STEP_TRAINER = Contract(
    feed="step_trainer",
    table="step_trainer_landing",
    fields=(
        Field("sensorReadingTime", Kind.INSTANT, privacy=PrivacyClass.SENSOR),
        Field("serialNumber", Kind.TEXT, privacy=PrivacyClass.INDIRECT),
        Field("distanceFromObject", Kind.INTEGER, privacy=PrivacyClass.SENSOR),
    ),
)

CONTRACTS = {contract.feed: contract for contract in (CUSTOMER, ACCELEROMETER, STEP_TRAINER)}
"""The contract of each feed, by the feed's name."""
