"""Lay thermal on the RGB pixel grid by a calibration file, and watch that it stays there.

`aligner` warps, `calibration` is the file, `drift` warns when a camera was moved, `structure` makes its maps.
"""
