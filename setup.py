"""The native modules; everything else about the build is in pyproject.toml.

FASTLISTEN_PURE=1        the engines of SMTP and IMAP are not compiled and run as pure Python
FASTLISTEN_PURE=0        they are compiled, also in place. Without the variable they are for a
                         wheel, but not for an editable install or `build_ext --inplace`
FASTLISTEN_DEBUG=1       no optimisation; indices and uninitialised views are checked
FASTLISTEN_SANITIZE=...  passed to -fsanitize=, e.g. "address,undefined"
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

if sys.platform != "linux":
    sys.exit("fastlisten needs Linux: its core uses epoll, accept4, eventfd and memfd_create.")

debug = os.environ.get("FASTLISTEN_DEBUG", "") not in ("", "0")
sanitize = os.environ.get("FASTLISTEN_SANITIZE", "")
in_place = not {"editable_wheel", "develop", "--inplace", "-i"}.isdisjoint(sys.argv)
pure = os.environ.get("FASTLISTEN_PURE", "") or str(int(in_place))
flags = ["-O0", "-g3", "-UNDEBUG"] if debug else ["-O2", "-g1"]
link = [f"-fsanitize={sanitize}"] if sanitize else []
if sanitize:
    # No function of a sanitized build may go on after undefined behaviour: a test must fail.
    flags += [*link, "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def extensions(paths):
    """Return what compiles modules, named by the paths of their sources."""
    return [
        Extension(str(path.with_suffix("")).replace("/", "."), [str(path)],
                  extra_compile_args=flags, extra_link_args=link)
        for path in paths
    ]  # fmt: skip


core = [
    Path("fastlisten", f"{name}.pyx")
    for name in ("_arena", "_core", "_connection", "_tls", "_mail_syntax")
]
directives = {
    "language_level": 3, "boundscheck": debug, "wraparound": False, "initializedcheck": debug,
    "cdivision": True, "binding": True, "embedsignature": False,
    # No state of the kernel's can be pickled, and no docstring here is a doctest.
    "auto_pickle": False, "autotestdict": False,
}  # fmt: skip

# Each module of an engine that has C types beside it. Written for Python, it relies on
# Python's checks: without them buf[-1] and None.attribute would read foreign memory.
engine = [path.with_suffix(".py") for path in sorted(Path("fastlisten/handlers").rglob("*.pxd"))]
as_python = {
    "language_level": 3, "boundscheck": True, "wraparound": True, "initializedcheck": True,
    "nonecheck": True, "cdivision": False, "annotation_typing": False, "binding": True,
    "embedsignature": False, "autotestdict": False,
}  # fmt: skip

# Cython compares times and would keep what it made with other directives.
force = "--force" in sys.argv
modules = cythonize(extensions(core), compiler_directives=directives, force=force)
if pure == "0":
    modules += cythonize(extensions(engine), compiler_directives=as_python, force=force)
else:
    # Python prefers a compiled module, however old, to the .py beside it, and a wheel packs what an
    # earlier build has left in build/.
    for folder in (*([Path()] if in_place else []), *Path("build").glob("lib*")):
        for path in engine:
            for compiled in (folder / path.parent).glob(f"{path.stem}.*.so"):
                compiled.unlink()
setup(ext_modules=modules)
