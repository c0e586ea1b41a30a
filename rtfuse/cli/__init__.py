"""Run the command lines: `main` declares the options of `rtfuse`, `commands` does what they ask.

`start`, `app`, `signals` and `failures` serve `trainer` and `calib` too. Importing the package imports nothing.
"""
