"""Storage: atomic files, locks that end with their process, objects of S3, settings.

`durable` writes and locks in a folder and in a bucket; `s3` is for buckets only; `config` reads a lake's settings;
`copies` protects copied lakes from writes; `destinations` writes output files of commands.
"""
