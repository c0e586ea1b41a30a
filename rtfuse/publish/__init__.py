"""Publish fused frames over ZeroMQ: planes, encoders, sockets, authentication.

`publisher` is the sink of the pipeline, `detections` the publisher of detectors, `proxy` joins many rigs.
"""

from rtfuse.publish.detections import DetectionsPublisher
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher

__all__ = ["DetectionsPublisher", "Offer", "Publisher"]
