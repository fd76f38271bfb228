"""Storage: atomic files, locks that end with their process, objects of S3, settings.

`durable` writes and locks in a folder and in a bucket; `s3` is what only a bucket has; `config` reads a lake's
settings; `copies` and `destinations` say where nothing is written, and what is written for whom.
"""
