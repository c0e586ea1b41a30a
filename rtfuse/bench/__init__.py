"""Measure the cost of each stage (`stages`) and of each engine (`engines`): `rtfuse bench`.

It imports the stages one by one and no pipeline.
"""
