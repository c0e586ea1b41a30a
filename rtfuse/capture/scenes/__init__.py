"""Pair still images that show the same scenes: by their names, their order, or the times in their names.

`names` reads words and numbers, `matching` makes pairs of names, `times` reads times; none of them touches a file.
`listing` lists files; `pairing` puts it together.
"""
