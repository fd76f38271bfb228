"""Compares the lake with its peers, as whole processes, in one run: `make bench`."""
