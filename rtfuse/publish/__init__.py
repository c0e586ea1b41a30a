"""Fused frames leave here: the wire format, the ZeroMQ publisher, the recorder."""
