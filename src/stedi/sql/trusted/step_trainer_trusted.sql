-- Grain: one row a distinct step trainer reading of a curated customer. Key: serialNumber, sensorReadingTime, distanceFromObject.
-- Rule 6: a serial number with one claimant is that customer's; of several, the one who moved at that very moment.
-- Why in order: as in accelerometer_trusted.
select
    o.customer_id,
    instant(o.sensorReadingTime) as sensorReadingTime,
    o.serialNumber,
    o.distanceFromObject
from (
    select distinct
        n.customer_id,
        n.person,
        s.sensorReadingTime,
        s.serialNumber,
        s.distanceFromObject
    from step_trainer_landing as s
    inner join claims as n on s.serialNumber = n.serialNumber and n.claimants = 1
    union all
    select
        customer_id,
        person,
        sensorReadingTime,
        serialNumber,
        distanceFromObject
    from shared_readings
    where matches = 1
    order by person, sensorReadingTime
) as o
inner join customers_curated as c on o.customer_id = c.customer_id
where $readings = 'all' or instant(o.sensorReadingTime) >= c.shareWithResearchAsOfDate -- rule 4
