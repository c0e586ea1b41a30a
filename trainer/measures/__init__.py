"""Measures beside those of papers: detection, segmentation, video, artefacts; docs/quality.md defines each."""
