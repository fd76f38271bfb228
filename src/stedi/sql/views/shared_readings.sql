-- Grain: one row a distinct step trainer reading of a serial number with several claimants.
-- Key: sensorReadingTime, serialNumber, distanceFromObject. `matches` counts the claimants who have an accelerometer
-- reading at the very same timestamp: one owns the reading (rule 6), none or several withhold it.
with shared as (
    select
        serialNumber,
        person
    from claims
    where claimants > 1
),

readings as (
    select distinct
        sensorReadingTime,
        serialNumber,
        distanceFromObject
    from step_trainer_landing
    where serialNumber in (select serialNumber from shared)
),

-- consenting or not: whose motion it was does not depend on consent
motions as (
    select distinct
        p.person,
        a."timestamp" as moment
    from accelerometer_landing as a
    inner join wearers as p on a."user" = p.address
    where p.person in (select person from shared)
),

counted as (
    select
        r.sensorReadingTime,
        r.serialNumber,
        r.distanceFromObject,
        count(m.person) as matches,
        min(m.person) as person
    from readings as r
    inner join shared as s on r.serialNumber = s.serialNumber
    left join motions as m on s.person = m.person and r.sensorReadingTime = m.moment
    group by r.sensorReadingTime, r.serialNumber, r.distanceFromObject
)

select
    c.sensorReadingTime,
    c.serialNumber,
    c.distanceFromObject,
    c.matches,
    p.customer_id,
    c.person
from counted as c
left join (select distinct person, customer_id from people) as p on c.person = p.person
