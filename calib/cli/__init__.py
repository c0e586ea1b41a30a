"""Define the `calib` command line: `main` runs it, `app` holds the shared options, the others hold the commands."""
