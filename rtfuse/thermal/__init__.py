"""Read the thermal stream: what its cameras send, how counts become brightness, and colours.

`cameras` are frame layouts, `preprocessing` cuts out and repairs the picture, `agc` maps counts, `palettes` colour it.
"""
