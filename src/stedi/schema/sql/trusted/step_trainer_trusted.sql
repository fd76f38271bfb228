-- Grain: one row a distinct step trainer reading of a curated customer. Key: serialNumber, sensorReadingTime, distanceFromObject.
-- Rule 6: a serial number with one claimant is that customer's; of several, the one who moved at that very moment.
-- Why in order: as in accelerometer_trusted. Why distinct over both: what is distinct is done before the sort begins, so
-- that neither needs memory beside the other.
select
    w.customer_id,
    instant(o.sensorReadingTime) as sensorReadingTime,
    o.serialNumber,
    o.distanceFromObject
from (
    select distinct
        b.person,
        b.sensorReadingTime,
        b.serialNumber,
        b.distanceFromObject
    from (
        select
            n.person,
            s.sensorReadingTime,
            s.serialNumber,
            s.distanceFromObject
        from step_trainer_landing as s
        inner join claims as n on s.serialNumber = n.serialNumber and n.claimants = 1
        inner join customers_curated as c on n.customer_id = c.customer_id
        where $readings = 'all' or instant(s.sensorReadingTime) >= c.shareWithResearchAsOfDate -- rule 4
        union all
        select
            r.person,
            r.sensorReadingTime,
            r.serialNumber,
            r.distanceFromObject
        from shared_readings as r
        inner join customers_curated as t on r.customer_id = t.customer_id
        where
            r.matches = 1
            and ($readings = 'all' or instant(r.sensorReadingTime) >= t.shareWithResearchAsOfDate)
    ) as b
    order by b.person, b.sensorReadingTime
) as o
inner join (select distinct person, customer_id from people) as w on o.person = w.person
