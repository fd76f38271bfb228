-- As many training rows as each customer's trusted readings make at each moment: none lost, none doubled.
-- Counted by hashes of customer and moment, another way than the table's own join.
select count(*) as expected
from (select hash(customer_id, sensorReadingTime) as moment from step_trainer_trusted) as s
inner join (
    select hash(customer_id, "timestamp") as moment
    from accelerometer_trusted
) as a on s.moment = a.moment
having count(*) <> (select count(*) from machine_learning_curated)
