"""EMMA in two stages (Zhao et al., CVPR 2024, arXiv 2305.11443): what trains the weights that `rtfuse` runs."""
