-- One row a customer.
select customer_id
from customers_trusted
group by customer_id
having count(*) > 1
