"""`patchcut export parity`: every engine and precision that this machine can run, side by side.

`ways` finds them, `answers` compares what they say, `times` how long they take, `one_process` what each costs
alone; `report` is what came out, `plot` draws it.
"""
