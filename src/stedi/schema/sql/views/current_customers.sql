-- Grain: one row a customer: the current record (rule 2). Key: customer_id.
-- Ties are broken by values alone, so that the order in which files arrive never matters;
-- what rule 2 leaves open (spelling of the address, the other two consents) is settled the same way.
-- The withdrawal of an unknown customer has neither registration nor serial number: absent is least, as everywhere.
select
    p.customer_id,
    c.customerName, c.email, c.phone, c.birthDay, c.serialNumber,
    c.registrationDate, c.lastUpdateDate,
    c.shareWithResearchAsOfDate, c.shareWithPublicAsOfDate, c.shareWithFriendsAsOfDate,
    -- rule 3: absent, in the future or no instant (a lake may be older than the contract) is no consent, and a record
    -- from the future gives none, though it takes away what older records gave
    coalesce(
        c.shareWithResearchAsOfDate >= 946684800000
        and c.shareWithResearchAsOfDate <= $build_started
        and c.lastUpdateDate <= $build_started,
        false
    ) as consents
from customers_landing as c
inner join people as p on c.email = p.address
qualify row_number() over (
    partition by p.customer_id
    order by
        c.lastUpdateDate desc,
        coalesce(
            c.shareWithResearchAsOfDate >= 946684800000
            and c.shareWithResearchAsOfDate <= $build_started
            and c.lastUpdateDate <= $build_started,
            false
        ) asc,
        c.shareWithResearchAsOfDate desc nulls last,
        c.registrationDate desc nulls last,
        c.serialNumber desc nulls last,
        c.customerName desc nulls last,
        c.phone desc nulls last,
        c.birthDay desc nulls last,
        c.email desc,
        c.shareWithPublicAsOfDate desc nulls last,
        c.shareWithFriendsAsOfDate desc nulls last
) = 1
