"""The report: one page that a board understands and an engineer uses, and the same as JSON.

`content.gather` asks the catalog, the registry, the last audit's record and aggregates of few columns (`measurements`),
passes counts of people through `disclosure`, and gives frozen dataclasses; `page` makes HTML of them, with pictures
from `charts`. `earlier` reads the report that a new one is compared with.
"""
