"""Train the weights that rtfuse runs, by EMMA's two stages (Zhao et al., CVPR 2024, arXiv 2305.11443)."""
