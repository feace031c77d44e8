"""The command `patchcut`: `app` parses the command line, and each command is one module."""
