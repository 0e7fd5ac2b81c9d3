"""Every speed and memory figure of the project comes from here: ``python -m benchmarks``.

Rules of this package: candidates are measured side by side in one run, never against a figure of
another day; what is reported is the server's cost, not the load generator's; a row says what it
is made of in `rows.py` and nowhere else. The tests do not time anything; this does.
"""
