"""Read thermal cameras, map counts to brightness, colour them.

`cameras` are frame layouts, `preprocessing` cuts out and repairs the picture, `agc` maps counts, `palettes` colour it.
"""
