-- Grain: one row a distinct step trainer reading of a curated customer. Key: serialNumber, sensorReadingTime, distanceFromObject.
-- Rule 6: a serial number with one claimant is that customer's; of several, the one who moved at that very moment.
select distinct
    c.customer_id,
    instant(s.sensorReadingTime) as sensorReadingTime,
    s.serialNumber,
    s.distanceFromObject
from step_trainer_landing as s
inner join claims as o on s.serialNumber = o.serialNumber and o.claimants = 1
inner join customers_curated as c on o.customer_id = c.customer_id
where $readings = 'all' or instant(s.sensorReadingTime) >= c.shareWithResearchAsOfDate -- rule 4
union all
select
    c.customer_id,
    instant(s.sensorReadingTime) as sensorReadingTime,
    s.serialNumber,
    s.distanceFromObject
from shared_readings as s
inner join customers_curated as c on s.customer_id = c.customer_id
where
    s.matches = 1
    and ($readings = 'all' or instant(s.sensorReadingTime) >= c.shareWithResearchAsOfDate)
