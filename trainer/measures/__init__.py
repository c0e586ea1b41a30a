"""Measure what papers do not: detection, segmentation, video, artefacts; docs/quality.md defines each."""
