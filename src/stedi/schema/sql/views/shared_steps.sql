-- Grain: one row a distinct step trainer reading of a serial number with several claimants. Key: all columns.
select distinct
    sensorReadingTime,
    serialNumber,
    distanceFromObject
from step_trainer_landing
where serialNumber in (select serialNumber from shared_claims)
