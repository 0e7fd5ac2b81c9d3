"""The native modules; everything else about the build is in pyproject.toml.

FASTLISTEN_DEBUG=1       no optimisation; indices and uninitialised views are checked
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
flags = ["-O0", "-g3", "-UNDEBUG"] if debug else ["-O2", "-g1"]
link = [f"-fsanitize={sanitize}"] if sanitize else []
if sanitize:
    # No function of a sanitized build may go on after undefined behaviour: a test must fail.
    flags += [*link, "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]

names = ("_arena", "_core", "_connection", "_tls")
modules = [
    Extension(f"fastlisten.{name}", [f"fastlisten/{name}.pyx"], extra_compile_args=flags,
              extra_link_args=link)
    for name in names
]  # fmt: skip
directives = {
    "language_level": 3, "boundscheck": debug, "wraparound": False, "initializedcheck": debug,
    "cdivision": True, "binding": True, "embedsignature": False,
    # No state of the kernel's can be pickled, and no docstring here is a doctest.
    "auto_pickle": False, "autotestdict": False,
}  # fmt: skip
# Cython compares times and would keep what it made with other directives.
force = "--force" in sys.argv
setup(ext_modules=cythonize(modules, compiler_directives=directives, force=force))
