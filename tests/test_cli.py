"""The command line: each command's text and JSON, its exit codes, and errors that say enough and never too much."""
