"""`python -m patchcut_kernels --cmakedir`: where the files lie that C and C++ programs build with."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import _C

# Not beside this file where the install is editable.
_ROOT = Path(_C.__file__).resolve().parent

_FOLDERS = {
    "cmakedir": (_ROOT / "cmake", "of patchcutConfig.cmake: cmake -Dpatchcut_DIR=..."),
    "includedir": (_ROOT / "include", "of patchcut/patchcut.h"),
    "libdir": (_ROOT, "of libpatchcut.so"),
}


def main() -> None:
    """Prints one folder.

    Raises:
        SystemExit: with status 2 unless there is exactly one known option.
    """
    parser = argparse.ArgumentParser(
        prog="python -m patchcut_kernels",
        description="Print a folder that programs in C and C++ build with.",
        allow_abbrev=False,
    )
    options = parser.add_mutually_exclusive_group(required=True)
    for name, (folder, what) in _FOLDERS.items():
        options.add_argument(f"--{name}", dest="folder", action="store_const", const=folder, help=what)
    print(parser.parse_args().folder)


if __name__ == "__main__":
    main()
