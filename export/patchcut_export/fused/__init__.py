"""One ONNX file from frame to assignment: what patchcut computes, for programs that have nothing else of it.

`plan` is what may be chosen, `model` puts the file together, `check` holds it to patchcut's own answers,
`write` does all three.
"""
