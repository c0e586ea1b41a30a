"""From two cameras on a bracket to a calibration file: boards -> intrinsics -> stereo -> report, or register."""
