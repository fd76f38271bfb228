-- Grain: one row a customer who agrees to research: the current record. Key: customer_id.
-- Why: everything below follows these rows and no others.
select
    customer_id,
    customerName,
    email,
    phone,
    -- a birthday that is no date is no birthday; there is no year 0
    case
        when regexp_matches(birthDay, '^[0-9]{4}-[0-9]{2}-[0-9]{2}$') and birthDay > '0001'
            then try_cast(birthDay as date)
    end as birthDay,
    serialNumber,
    instant(registrationDate) as registrationDate,
    instant(lastUpdateDate) as lastUpdateDate,
    instant(shareWithResearchAsOfDate) as shareWithResearchAsOfDate,
    instant(shareWithPublicAsOfDate) as shareWithPublicAsOfDate,
    instant(shareWithFriendsAsOfDate) as shareWithFriendsAsOfDate
from current_customers
where consents
