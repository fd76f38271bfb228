"""The contracts of the three feeds: facts only, as the website, the app and the devices deliver them."""

from __future__ import annotations

from stedi.schema.contracts import Class, Contract, Field, Kind

CUSTOMER = Contract(
    feed="customer",
    table="customers_landing",
    fields=(
        Field("customerName", Kind.TEXT, required=False, privacy=Class.DIRECT),
        Field("email", Kind.TEXT, privacy=Class.DIRECT, names_customer=True),
        Field("phone", Kind.TEXT, required=False, privacy=Class.DIRECT),
        Field("birthDay", Kind.TEXT, required=False, privacy=Class.DIRECT),
        Field("serialNumber", Kind.TEXT, privacy=Class.INDIRECT),
        Field("registrationDate", Kind.INSTANT, privacy=Class.INDIRECT),
        Field("lastUpdateDate", Kind.INSTANT, privacy=Class.INDIRECT),
        Field("shareWithResearchAsOfDate", Kind.INSTANT, required=False, privacy=Class.INDIRECT),
        Field("shareWithPublicAsOfDate", Kind.INSTANT, required=False, privacy=Class.INDIRECT),
        Field("shareWithFriendsAsOfDate", Kind.INSTANT, required=False, privacy=Class.INDIRECT),
    ),
)

ACCELEROMETER = Contract(
    feed="accelerometer",
    table="accelerometer_landing",
    fields=(
        Field("user", Kind.TEXT, privacy=Class.DIRECT, names_customer=True),
        Field("timestamp", Kind.INSTANT, privacy=Class.SENSOR),
        Field("x", Kind.NUMBER, privacy=Class.SENSOR),
        Field("y", Kind.NUMBER, privacy=Class.SENSOR),
        Field("z", Kind.NUMBER, privacy=Class.SENSOR),
    ),
)

STEP_TRAINER = Contract(
    feed="step_trainer",
    table="step_trainer_landing",
    fields=(
        Field("sensorReadingTime", Kind.INSTANT, privacy=Class.SENSOR),
        Field("serialNumber", Kind.TEXT, privacy=Class.INDIRECT),
        Field("distanceFromObject", Kind.INTEGER, privacy=Class.SENSOR),
    ),
)

CONTRACTS = {contract.feed: contract for contract in (CUSTOMER, ACCELEROMETER, STEP_TRAINER)}
"""The contract of each feed, by the feed's name."""
