-- One row a customer.
select customer_id
from customers_curated
group by customer_id
having count(*) > 1
