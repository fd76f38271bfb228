"""Read-only audits of a lake: files, rules of consent, explanations, risk.

`integrity` checks that the files are unchanged. `proof` computes the rules of consent a second time. `explain`
explains one customer or some rows. `risk` measures how far the training table still tells people apart.
"""
