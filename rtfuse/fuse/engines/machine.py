"""Find what this machine can run: NVIDIA GPUs, torch, OpenVINO."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
from functools import cache
from typing import Any

from rtfuse.errors import EngineUnavailable
from rtfuse.hints import install_hint
from rtfuse.libraries import openvino_library

_log = logging.getLogger("rtfuse.fuse")


@cache
def nvidia_gpus() -> int:
    """Return how many NVIDIA GPUs the driver has, by asking the driver itself; 0 without one."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
            count = ctypes.c_int(0)
            if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
                return count.value
        except (OSError, AttributeError):
            continue
    return 0


def has_torch() -> bool:
    """Tell whether torch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


@cache
def torch_gpu() -> bool:
    """Tell whether torch is a CUDA build that sees a GPU; torch is imported only where the driver has one."""
    if not nvidia_gpus() or not has_torch():
        return False
    try:
        import torch

        return torch.cuda.is_available()
    except Exception as e:  # noqa: BLE001 - a torch that is broken or of another platform raises anything
        _log.warning("torch does not load: %s", " ".join(str(e).split())[:200])
        return False


def openvino_module() -> Any:
    """Return OpenVINO's module. Raises EngineUnavailable if it is not installed or does not load."""
    try:
        return openvino_library()
    except ImportError as e:
        why = " ".join(str(e).split())[:200]
        raise EngineUnavailable(f"engine 'openvino' does not load: {why}; {install_hint(broken='openvino')}") from e
