#!/usr/bin/env bash
# Run every check that needs a GPU: parity and speed of every engine, many rigs at once, training steps. It stops after 10
# minutes, prints a summary last, and writes all results to gpu_check.json (or the given file). It needs a CUDA build of
# torch and, for TensorRT, one of its libraries (docs/engines.md); it reports missing parts and runs the rest.
#   tools/gpu_check.sh [FILE.json] [--on-processor]      --on-processor: a small run without a GPU
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec timeout 590 "$PYTHON" tools/gpu_check.py "$@"
