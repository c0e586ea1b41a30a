"""`python -m rtfuse` is the command line."""

from rtfuse.cli import main

main()
