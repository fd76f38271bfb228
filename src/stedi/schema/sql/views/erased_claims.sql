-- Grain: one row a serial number that erased customers have claimed, of those that others claim. Key: serialNumber.
-- Rule 6: their claims stand. The engine keeps the serial numbers that are on tombstones, told by their keyed hashes,
-- and adds `claimants`, how many erased customers claimed each: a number, since nothing else is known of them.
select distinct serialNumber
from customers_landing
where serialNumber is not null
