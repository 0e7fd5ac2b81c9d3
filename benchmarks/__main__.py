"""``python -m benchmarks``: see `run.py`."""

from __future__ import annotations

import sys

from benchmarks.process import end_when_told
from benchmarks.run import main

if __name__ == "__main__":
    end_when_told()
    sys.exit(main())
