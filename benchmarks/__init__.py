"""Every speed and memory figure of the project comes from here: ``python -m benchmarks``.

Rules of this package: candidates are measured side by side in one run, never against figures of
another day. The cost reported is the server's, not the load generator's. The rows of the table are
defined in `rows.py` and nowhere else. Tests do not time anything; only this package does.
"""
