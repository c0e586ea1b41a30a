"""Exchange calibrations with other tools: `texts` parses files, `lenses` and `rigs` read them, `writing` writes."""
