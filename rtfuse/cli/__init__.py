"""Run the command lines: `main` lists the subcommands of `rtfuse`, a module each; `commands` does their work.

`start`, `app`, `signals` and `failures` serve `trainer` and `calib` too. Importing the package imports nothing.
"""
