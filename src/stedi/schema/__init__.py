"""The schema: contracts, feeds, the tables' SQL and columns, and the privacy class of each column.

Definitions only: no clock, no disk, no network. `feeds` -> `contracts`; `sql/` -> `tables` (the graph that a build
follows) -> `classification` (which columns identify a person) -> `roles` and `ddl` (who sees a column, and how other
engines declare it).
"""
