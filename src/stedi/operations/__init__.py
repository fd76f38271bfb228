"""Daily operation of a lake: nothing here changes a row.

`status` says what is late or wrong, `doctor` whether this machine can run a lake, `watch` lands and builds what comes,
`recovery` finishes what killed commands have decided, `migration` brings a lake of an earlier format to this one.
`maintenance` rewrites its files. `metrics`, `lineage` and `tracing` tell other programs of the runs that `context.runs`
keeps: Prometheus by a text file, OpenLineage by events, OpenTelemetry by spans.
"""
