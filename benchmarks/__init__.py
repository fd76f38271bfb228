"""Side by side with peers, as whole processes, in one run: `make bench`."""
