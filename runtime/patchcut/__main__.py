"""`python -m patchcut`: the command `patchcut`, for where its script is not on the PATH."""

from patchcut.cli.app import main

if __name__ == "__main__":
    main()
