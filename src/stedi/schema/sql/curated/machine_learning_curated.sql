-- Grain: one row a trusted step trainer reading and accelerometer reading of the same customer at the same moment.
-- Key: none: two devices of one customer may make equal rows.
-- Why the customer is in the join: on the timestamp alone it would pair one person's steps with another's motion.
select
    s.customer_id,
    s.sensorReadingTime,
    s.distanceFromObject,
    a.x,
    a.y,
    a.z
from step_trainer_trusted as s
inner join accelerometer_trusted as a on s.customer_id = a.customer_id and s.sensorReadingTime = a."timestamp"
