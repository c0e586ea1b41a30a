"""Find grids of discs: `blobs` finds discs, `lattice` joins them, `centre` locates them, `grid` is the whole."""
