"""Check the contents of an sdist and a wheel.

    git ls-files -z | python .ci/check_packages.py SDIST WHEEL

Rules of this file: it reads archives, however they were made. The sdist contains every tracked file
except those of the repository itself (.ci, .github, .gitignore), so that the package can be built,
tested and documented from it; the wheel contains what is used, and no C.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile


def sdist_problems(names: set[str], tracked: set[str]) -> list[str]:
    """Compare an sdist with what is tracked, both without the leading directory."""
    expected = {name for name in tracked if not name.startswith((".ci/", ".git"))}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info" in name}
    return [f"sdist lacks {name}" for name in sorted(expected - names)] + [
        f"sdist holds {name}" for name in sorted(names - expected - made)
    ]


def compiled_modules(tracked: set[str]) -> set[str]:
    """Return the modules that a wheel has compiled, as paths without a suffix.

    Those that are written in Cython, and the Python modules with C types (a .pxd) beside them.
    """
    stems = {
        suffix: {name.removesuffix(suffix) for name in tracked if name.endswith(suffix)}
        for suffix in (".pyx", ".pxd", ".py")
    }
    return stems[".pyx"] | (stems[".pxd"] & stems[".py"])


def wheel_problems(names: set[str], tracked: set[str]) -> list[str]:
    """List what a wheel lacks of the package, and what it contains besides."""
    expected = {name for name in tracked if name.startswith("fastlisten/")}
    found = {name for name in names if ".dist-info/" not in name}
    compiled = {name: name.split(".")[0] for name in found if name.endswith(".so")}
    modules = compiled_modules(tracked)
    native = {name for name, module in compiled.items() if module in modules}
    problems = [f"wheel lacks {name}" for name in sorted(expected - found)]
    problems += [f"wheel holds {name}" for name in sorted(found - expected - native)]
    for module in sorted(modules):
        count = list(compiled.values()).count(module)
        if count != 1:
            problems.append(f"wheel has {count} compiled modules {module}")
    return problems


def main() -> int:
    """Check both; return 1 if anything is wrong."""
    sdist, wheel = sys.argv[1:]
    tracked = set(filter(None, sys.stdin.read().split("\0")))
    with tarfile.open(sdist) as archive:
        files = [member.name.partition("/")[2] for member in archive if member.isfile()]
    problems = sdist_problems(set(files), tracked)
    with zipfile.ZipFile(wheel) as archive:
        problems += wheel_problems(set(archive.namelist()), tracked)
    print("\n".join(problems) or f"sdist of {len(files)} files, wheel: contents as expected")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
