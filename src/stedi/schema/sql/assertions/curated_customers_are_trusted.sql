-- Curated is a part of trusted.
select customer_id
from customers_curated
where customer_id not in (select customer_id from customers_trusted)
