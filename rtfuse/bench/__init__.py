"""Measure the cost of each stage (`stages`) and of each engine (`engines`): `rtfuse bench`.

The stages of `rtfuse.pipeline` run one after the other in one thread.
"""
