"""The script that Glue runs, and `spark-submit` alike: the job of the installed package."""

import importlib

# an exit by hand, even with 0, is a failure to some versions of Glue
if code := importlib.import_module("stedi.aws.job").main():
    raise SystemExit(code)
