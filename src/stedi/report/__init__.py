"""Reports for people: the page about the lake, and the export of one person's data.

The report is one page that a board understands and an engineer uses, and the same as JSON. `gathering.gather` asks the
catalog, the registry, the last audit's record and aggregates of few columns (`measurements`), passes counts of people
through `disclosure`, and gives frozen dataclasses; `page` makes HTML of them, with pictures from `charts`. `earlier`
reads the report that a new one is compared with. `export` writes what the lake has of a person: `attribution` says
what of a text is theirs, `readme` says it in plain words. `attestation` checks what a lake has signed, for those
who have no access to it.
"""
