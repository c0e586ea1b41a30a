"""Run a network: by OpenVINO, TensorRT, CUDA graphs or eager torch.

`selection` takes the fastest engine that works here; `cache` stores built engines, `parity` checks it.
"""
