"""Receive the messages of a rig: frames, statistics, states, detections; change its settings.

Other programs import this package. It loads neither torch nor OpenCV nor FFmpeg.
"""

from rtfuse.client.control import Control
from rtfuse.client.messages import DetectionsSubscriber, StateSubscriber, StatisticsSubscriber, describe
from rtfuse.client.subscriber import Received, Subscriber

__all__ = [
    "Control",
    "DetectionsSubscriber",
    "Received",
    "StateSubscriber",
    "StatisticsSubscriber",
    "Subscriber",
    "describe",
]
