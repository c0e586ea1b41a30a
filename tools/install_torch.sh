#!/bin/sh
# Install the locked torch with a Python: tools/install_torch.sh .venv/bin/python [cpu|cuda]
#
# The CUDA build is gigabytes, so it is installed only if nvidia-smi finds a GPU, or on request. The CPU build for Linux is
# in PyTorch's own index, not on PyPI. pip searches its configured indexes and folders first, then PyTorch's; it accepts
# only the files that the lock names by hash.
set -eu
python=$1
locks=$(dirname "$0")/../requirements
index=https://download.pytorch.org/whl/cpu

if [ "${2:-}" ]; then
  build=$2 why="as asked"
elif [ "$(uname -s)" = Linux ] && nvidia-smi -L >/dev/null 2>&1; then
  build=cuda why="nvidia-smi finds a GPU"
else
  build=cpu why="nvidia-smi finds no GPU"
fi
case $build in cpu | cuda) ;; *)
  echo "install_torch.sh: there is no build '$build' of torch: take cpu or cuda" >&2
  exit 2
  ;;
esac

install() { "$python" -m pip install --quiet --no-deps --require-hashes "$@"; }

if [ "$build" = cpu ]; then
  echo "torch: the CPU build, $why"
  install -r "$locks/torch-cpu.txt" 2>/dev/null && exit
  install -r "$locks/torch-cpu.txt" --extra-index-url $index --retries 2 --timeout 10 && exit
  why="$index does not give the CPU build"
fi
echo "torch: the CUDA build with its libraries (gigabytes), $why"
install -r "$locks/torch-cuda.txt"
