-- As many training rows as each customer's trusted readings make at each moment: none lost, none doubled.
select sum(s.readings * a.readings) as expected
from (
    select hash(customer_id, sensorReadingTime) as moment, count(*) as readings
    from step_trainer_trusted
    group by 1
) as s
inner join (
    select hash(customer_id, "timestamp") as moment, count(*) as readings
    from accelerometer_trusted
    group by 1
) as a on s.moment = a.moment
having coalesce(sum(s.readings * a.readings), 0) <> (select count(*) from machine_learning_curated)
