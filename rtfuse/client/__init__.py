"""Receive the messages of a rig: frames, statistics, states, detections.

Other programs import this package. It loads neither torch nor OpenCV nor FFmpeg.
"""

from rtfuse.client.messages import DetectionsSubscriber, StateSubscriber, StatisticsSubscriber, describe
from rtfuse.client.subscriber import Received, Subscriber

__all__ = ["DetectionsSubscriber", "Received", "StateSubscriber", "StatisticsSubscriber", "Subscriber", "describe"]
