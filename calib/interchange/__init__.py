"""Read and write the calibration files of other tools.

`texts`: parses the files into plain values.
`lenses`, `rigs`: read one camera, or two and the pose between them.
`cameras`: writes one camera.
`kalibr`: reads and writes Kalibr's chains.
"""
