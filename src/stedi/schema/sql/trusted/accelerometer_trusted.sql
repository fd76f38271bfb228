-- Grain: one row a distinct accelerometer reading of a customer who agrees to research.
-- Key: all columns. Why distinct: the app delivers readings again.
-- Why in order: a customer's rows lie together, so that files are a fifth of the size and few hold any one customer;
-- in order before the pseudonyms are joined, since numbers are sorted sooner than texts.
select
    w.customer_id,
    instant(r.moment) as "timestamp",
    r.x,
    r.y,
    r.z
from (
    select distinct
        p.person,
        a."timestamp" as moment,
        -- JSON tells -0.0 from 0.0, no reader does: of two equal readings either could stay, so both are 0.0
        a.x + 0 as x,
        a.y + 0 as y,
        a.z + 0 as z
    from accelerometer_landing as a
    inner join wearers as p on a."user" = p.address -- rule 5
    inner join customers_trusted as c on p.customer_id = c.customer_id
    where $readings = 'all' or instant(a."timestamp") >= c.shareWithResearchAsOfDate -- rule 4
    order by p.person, moment
) as r
inner join (select distinct person, customer_id from wearers) as w on r.person = w.person
