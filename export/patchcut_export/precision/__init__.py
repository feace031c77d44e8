"""What turns a float graph into one of fewer bits; each module is one precision: `int8`."""
