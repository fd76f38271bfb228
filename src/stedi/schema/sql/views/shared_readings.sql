-- Grain: one row a distinct step trainer reading of a serial number with several claimants.
-- Key: sensorReadingTime, serialNumber, distanceFromObject. `matches` counts the claimants who have an accelerometer
-- reading at the very same timestamp: one owns the reading (rule 6), none or several withhold it.
with counted as (
    select
        r.sensorReadingTime,
        r.serialNumber,
        r.distanceFromObject,
        count(m.person) as matches,
        min(m.person) as person
    from shared_steps as r
    inner join shared_claims as s on r.serialNumber = s.serialNumber
    left join shared_motions as m on s.person = m.person and r.sensorReadingTime = m.moment
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
