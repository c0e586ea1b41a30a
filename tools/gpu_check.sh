#!/usr/bin/env bash
# Everything that needs a GPU, in one go: parity of every engine, their speed, many rigs at once, training steps. Stopped after
# 10 minutes; the summary comes last, and everything goes to gpu_check.json (or the file given). It needs a CUDA build of
# torch and, for TensorRT, one of its libraries (docs/engines.md); what is missing is reported, the rest still runs.
#   tools/gpu_check.sh [FILE.json] [--on-processor]      the latter: a small run that shows that the tool works
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec timeout 590 "$PYTHON" tools/gpu_check.py "$@"
