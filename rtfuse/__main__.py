"""Run the command line: `rtfuse`, or `python -m rtfuse`."""

from rtfuse.cli.start import run


def main() -> None:
    """Run `rtfuse`."""
    run("rtfuse.cli.main")


if __name__ == "__main__":
    main()
