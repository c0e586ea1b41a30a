"""Register thermal to RGB from footage, without a board: `register` for arrays, `calibration` for the file.

`view` holds the pictures, `search` finds where they fit, `refine` improves the fit, `judge` accepts or refuses it.
"""
