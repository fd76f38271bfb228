-- Grain: one row a serial number and customer who ever named it. Key: serialNumber, customer_id.
-- Rule 6: every landed record claims, of consenting customers and of others, current or superseded;
-- but for the withdrawal of somebody of whom nothing else is known, which names no device. Erased customers count as
-- claimants who never move.
select
    n.serialNumber,
    n.customer_id,
    n.person,
    count(*) over (partition by n.serialNumber) + coalesce(e.claimants, 0) as claimants
from (
    select distinct
        c.serialNumber,
        p.customer_id,
        p.person
    from customers_landing as c
    inner join people as p on c.email = p.address
    where c.serialNumber is not null
) as n
left join erased_claims as e on n.serialNumber = e.serialNumber
