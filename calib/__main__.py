"""Start the command line of `calib` and `python -m calib`."""

from rtfuse.cli.start import run


def main() -> None:
    """Run `calib`."""
    run("calib.cli.main")


if __name__ == "__main__":
    main()
