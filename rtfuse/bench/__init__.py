"""Measure what each stage costs (`stages`), and what each engine costs (`engines`): `rtfuse bench`.

It imports the stages one by one and no pipeline.
"""
