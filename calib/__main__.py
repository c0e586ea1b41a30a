"""`python -m calib` is the command line."""

from calib.cli import main

main()
