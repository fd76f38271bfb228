"""The schema: contracts, feeds, the tables' SQL and columns, and the privacy class of each column.

Facts only: no clock, no disk, no network. `feeds` -> `contracts`; `sql/` -> `tables` (the graph that a build follows)
-> `classification` (which column names a person) -> `roles` and `ddl` (who sees it, and how others declare it).
"""
