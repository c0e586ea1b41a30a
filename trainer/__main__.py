"""`trainer`, and `python -m trainer`, is the command line."""

from rtfuse.cli.start import run


def main() -> None:
    """Run `trainer`."""
    run("trainer.cli")


if __name__ == "__main__":
    main()
