"""What the configuration may import: neither native modules nor a loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fastlisten

# The package's own __init__ is left out: it imports everything, because it is the public face.
SCRIPT = """
import sys, types
package = types.ModuleType("fastlisten")
package.__path__ = [sys.argv[1]]
sys.modules["fastlisten"] = package
import fastlisten.config, fastlisten.cli.check, fastlisten.cli.show
fastlisten.config.default_config().unavailable()
loops = {"asyncio", "uvloop"} & set(sys.modules)
native = {name for name in sys.modules if name.startswith("fastlisten._")}
print(sorted(loops | native))
"""


def test_the_configuration_needs_neither_loop_nor_native_modules() -> None:
    root = str(Path(fastlisten.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, root], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "[]\n"
