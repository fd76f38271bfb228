"""The script that Glue or `spark-submit` runs; it starts the job of the installed package."""

import importlib

# some versions of Glue treat any explicit exit as a failure, even with code 0
if code := importlib.import_module("stedi.aws.job").main():
    raise SystemExit(code)
