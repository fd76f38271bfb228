-- As many training rows as each customer's trusted readings make at each moment: none lost, none doubled.
select
    (select count(*) from machine_learning_curated) as found,
    sum(s.readings * a.readings) as expected
from (
    select customer_id, sensorReadingTime, count(*) as readings
    from step_trainer_trusted
    group by customer_id, sensorReadingTime
) as s
inner join (
    select customer_id, "timestamp", count(*) as readings
    from accelerometer_trusted
    group by customer_id, "timestamp"
) as a on s.customer_id = a.customer_id and s.sensorReadingTime = a."timestamp"
having (select count(*) from machine_learning_curated) <> coalesce(sum(s.readings * a.readings), 0)
