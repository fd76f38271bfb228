-- Grain: one row an address under which accelerometer readings were delivered, a customer's or not. Key: address.
-- The engine adds `customer_id` and `person`, the same as in `people` for the same customer.
select distinct "user" as address
from accelerometer_landing
