"""`python -m trainer` is the command line."""

from trainer.cli import main

main()
