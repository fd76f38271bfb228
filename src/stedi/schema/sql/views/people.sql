-- Grain: one row an address under which a customer record was delivered. Key: address.
-- The engine adds `customer_id`, the pseudonym, once an address and never once a reading (rules 1 and 7),
-- and `person`, a number that stands for it within one build, in the order of the pseudonyms.
select distinct email as address
from customers_landing
