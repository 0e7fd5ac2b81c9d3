"""An application whose import takes until the process is told to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

(Path(os.environ["TOLD"]) / "hangs").touch()
while True:
    signal.pause()
