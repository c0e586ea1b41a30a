"""`rtfuse`, and `python -m rtfuse`, is the command line."""

from rtfuse.cli.start import run


def main() -> None:
    """Run `rtfuse`."""
    run("rtfuse.cli.main")


if __name__ == "__main__":
    main()
