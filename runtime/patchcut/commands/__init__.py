"""What the commands of `patchcut` do, one module each; `patchcut.cli` parses their options."""
