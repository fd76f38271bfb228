-- Grain: one row a trusted customer who has trusted accelerometer readings. Key: customer_id.
select
    c.customer_id,
    c.customerName,
    c.email,
    c.phone,
    c.birthDay,
    c.serialNumber,
    c.registrationDate,
    c.lastUpdateDate,
    c.shareWithResearchAsOfDate,
    c.shareWithPublicAsOfDate,
    c.shareWithFriendsAsOfDate
from customers_trusted as c
where c.customer_id in (select customer_id from accelerometer_trusted)
