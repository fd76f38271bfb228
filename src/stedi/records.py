"""The contracts of the three feeds: facts only, as the website, the app and the devices deliver them."""

from __future__ import annotations

from stedi.contracts import Contract, Field, Kind

CUSTOMER = Contract(
    feed="customer",
    table="customers_landing",
    fields=(
        Field("customerName", Kind.TEXT, required=False),
        Field("email", Kind.TEXT),
        Field("phone", Kind.TEXT, required=False),
        Field("birthDay", Kind.TEXT, required=False),
        Field("serialNumber", Kind.TEXT),
        Field("registrationDate", Kind.INSTANT),
        Field("lastUpdateDate", Kind.INSTANT),
        Field("shareWithResearchAsOfDate", Kind.INSTANT, required=False),
        Field("shareWithPublicAsOfDate", Kind.INSTANT, required=False),
        Field("shareWithFriendsAsOfDate", Kind.INSTANT, required=False),
    ),
)

ACCELEROMETER = Contract(
    feed="accelerometer",
    table="accelerometer_landing",
    fields=(
        Field("user", Kind.TEXT),
        Field("timestamp", Kind.INSTANT),
        Field("x", Kind.NUMBER),
        Field("y", Kind.NUMBER),
        Field("z", Kind.NUMBER),
    ),
)

STEP_TRAINER = Contract(
    feed="step_trainer",
    table="step_trainer_landing",
    fields=(
        Field("sensorReadingTime", Kind.INSTANT),
        Field("serialNumber", Kind.TEXT),
        Field("distanceFromObject", Kind.INTEGER),
    ),
)

CONTRACTS = {contract.feed: contract for contract in (CUSTOMER, ACCELEROMETER, STEP_TRAINER)}
"""The contract of each feed, by the feed's name."""
