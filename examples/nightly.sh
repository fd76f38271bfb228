#!/bin/sh
# What a scheduler runs each night: nightly.sh INBOX LAKE EXPORT
# Landing goes on where single files cannot be read (exit 1, each named on stderr); building does not go on past an
# audit that found a violation (exit 3), and then every table stands as it was.
set -u
inbox=$1 lake=$2 export=$3

stedi --lake "$lake" land "$inbox" || echo "nightly: some files were not landed" >&2
stedi --lake "$lake" build || exit
# a file that is whole or absent, named after the day, for those who train
stedi --lake "$lake" query --output "$export/steps-$(date -u +%F).parquet" 'select * from machine_learning_curated'
