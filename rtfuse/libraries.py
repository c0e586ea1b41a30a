"""Import foreign libraries that send usage data when they are imported, with that switched off."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_CONVERTER = "openvino.tools.ovc"


def openvino_library() -> ModuleType:
    """Import OpenVINO without `openvino_telemetry` and without its converter. Raises ImportError.

    The telemetry takes consent for granted, looks up an analytics host at the import, and writes an identifier into the
    home folder. The converter costs 0.1 s and 5 MB, and running a program needs none. OpenVINO imports both in a `try`
    for ImportError, which None causes.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    sys.modules.setdefault(_CONVERTER, None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def openvino_converter() -> Callable[..., Any]:
    """Return OpenVINO's `convert_model`. Raises ImportError."""
    openvino_library()
    if sys.modules[_CONVERTER] is None:
        del sys.modules[_CONVERTER]
    converter: Callable[..., Any] = importlib.import_module(_CONVERTER).convert_model
    return converter


def onnxruntime_library() -> ModuleType:
    """Import ONNX Runtime without its telemetry. Raises ImportError.

    Since 1.29 the import writes an identifier into the home folder, and sends usage data to its maker. This variable
    is read at the import; `disable_telemetry_events()` is for Windows, and comes too late for the others.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    library = importlib.import_module("onnxruntime")
    library.disable_telemetry_events()
    return library
