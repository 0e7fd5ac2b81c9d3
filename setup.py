"""The native modules; everything else about the build is in pyproject.toml.

FASTLISTEN_DEBUG=1       no optimisation, assertions, the core's extra checks
FASTLISTEN_SANITIZE=...  passed to -fsanitize=, e.g. "address,undefined"
"""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

if sys.platform != "linux":
    sys.exit("fastlisten needs Linux: its core uses epoll, accept4, eventfd and memfd_create.")

debug = os.environ.get("FASTLISTEN_DEBUG", "") not in ("", "0")
sanitize = os.environ.get("FASTLISTEN_SANITIZE", "")
flags = ["-O0", "-g3", "-UNDEBUG", "-DFASTLISTEN_DEBUG=1"] if debug else ["-O2", "-g1"]
link = []
if sanitize:
    flags += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    link += [f"-fsanitize={sanitize}"]

modules = [
    Extension(f"fastlisten.{name}", [f"fastlisten/{name}.pyx"],
              extra_compile_args=flags, extra_link_args=link)
    for name in ("_core", "_connection")
]
directives = {
    "language_level": 3, "boundscheck": debug, "wraparound": False, "initializedcheck": debug,
    "cdivision": True, "nonecheck": debug, "binding": True, "embedsignature": False,
}
setup(ext_modules=cythonize(modules, compiler_directives=directives))
