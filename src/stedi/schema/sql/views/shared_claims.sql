-- Grain: one row a customer and serial number that others claim as well. Key: serialNumber, person.
-- Why views of their own, here and in the next two: each is computed once and can leave memory before the next is,
-- so that what many devices share takes no more of it than the largest step.
select
    serialNumber,
    person
from claims
where claimants > 1
