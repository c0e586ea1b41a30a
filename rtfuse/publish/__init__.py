"""Publish fused frames over ZeroMQ: planes, encoders, sockets, authentication.

`publisher` is the sink of the pipeline, `detections` the publisher of detectors, `proxy` joins many rigs.
"""
