"""Audits of a lake, read-only: files, rules of consent, explanations, risk.

`integrity` reads every file as it was written, `proof` works the rules of consent out a second time, `explain` answers
for one customer or row, `risk` measures how far the training table still tells people apart.
"""
