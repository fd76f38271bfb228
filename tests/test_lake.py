"""A lake from Python: made, opened, asked, and refused with one clear line."""
