-- Rule 6: the owner of a reading is a curated customer.
select distinct customer_id
from step_trainer_trusted
where customer_id not in (select customer_id from customers_curated)
