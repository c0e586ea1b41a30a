"""Foreign libraries that report home when they are imported: they are loaded here, with that switched off."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def openvino_library() -> ModuleType:
    """Import OpenVINO without `openvino_telemetry`; OpenVINO then uses its own stub. Raises ImportError.

    The telemetry takes consent for granted, looks up an analytics host at the import, and writes an identifier into the
    home folder. Each of OpenVINO's modules that imports it does so in a `try` for ImportError, which None causes.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def onnxruntime_library() -> ModuleType:
    """Import ONNX Runtime without its telemetry. Raises ImportError.

    Since 1.29 the import writes an identifier into the home folder, and sends usage data to its maker. This variable
    is read at the import; `disable_telemetry_events()` is for Windows, and comes too late for the others.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    library = importlib.import_module("onnxruntime")
    library.disable_telemetry_events()
    return library
