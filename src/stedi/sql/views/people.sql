-- Grain: one row an address as delivered, of customers and of readings. Key: address.
-- The engine adds `customer_id`, the pseudonym, once an address and never once a reading (rules 1 and 7),
-- and `person`, a number that stands for it within one build.
select email as address from customers_landing
union
select "user" as address from accelerometer_landing
