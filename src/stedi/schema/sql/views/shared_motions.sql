-- Grain: one row a moment at which a claimant of a shared serial number moved. Key: person, moment.
-- Consenting or not: whose motion it was does not depend on consent.
select distinct
    p.person,
    a."timestamp" as moment
from accelerometer_landing as a
inner join wearers as p on a."user" = p.address
where p.person in (select person from shared_claims)
