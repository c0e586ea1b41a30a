"""Frame sources, behind `open_source(uri, stream)`."""
