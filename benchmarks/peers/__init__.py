"""The same job done elsewhere: from a folder of JSON to Parquet files a zone, with no guarantees.

Each module is a script, `python PEER.py LANDING OUT`, written the way its own manual would write it.
"""
