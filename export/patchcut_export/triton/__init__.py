"""A model repository for Triton Inference Server: frames in; labels, masks and boxes out.

`plan` is what may be chosen, `configs` says to Triton what there is, `regions_model` is what its Python
backend runs, `tensorrt_plan` builds what its TensorRT backend runs, `repository` puts it all together.
"""
