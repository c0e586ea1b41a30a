"""Calibrate a rig of two cameras: boards -> intrinsics -> stereo -> report, or register without a board."""
