"""Define the networks, U-Fuser and its student, and the form of each that an engine runs fastest.

`loading` reads weights. All modules here need torch.
"""
