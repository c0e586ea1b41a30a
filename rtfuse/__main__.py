"""`rtfuse`, and `python -m rtfuse`, is the command line."""

from rtfuse.start import run


def main() -> None:
    """Run `rtfuse`."""
    run("rtfuse.cli")


if __name__ == "__main__":
    main()
