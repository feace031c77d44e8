"""`python -m patchcut_kernels --cmakedir`: folders of the files that C and C++ programs build with."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import _C

# Not beside this file where the install is editable.
_ROOT = Path(_C.__file__).resolve().parent

_FOLDERS = {
    "cmakedir": (_ROOT / "cmake", "folder of patchcutConfig.cmake: cmake -Dpatchcut_DIR=..."),
    "includedir": (_ROOT / "include", "folder above patchcut/patchcut.h"),
    "libdir": (_ROOT, "folder of libpatchcut.so"),
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
    for name, (folder, text) in _FOLDERS.items():
        options.add_argument(f"--{name}", dest="folder", action="store_const", const=folder, help=text)
    print(parser.parse_args().folder)


if __name__ == "__main__":
    main()
