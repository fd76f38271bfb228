-- A reading that was delivered twice stands once.
select 1 as doubled
from accelerometer_trusted
having count(*) <> count(distinct hash(customer_id, "timestamp", x, y, z))
