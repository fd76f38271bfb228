-- Grain: one row an address as delivered, of customers and of readings. Key: address.
-- The engine adds `customer_id`, its pseudonym: once an address, never once a reading (rules 1 and 7).
select email as address from customers_landing
union
select "user" as address from accelerometer_landing
