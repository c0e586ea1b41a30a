# make demo   fuse the synthetic scene, or IR=thermal.mp4 RGB=rgb.mp4, into out/
# make test   run every test (needs no camera and no GPU)
# make lint   linters and the type checker
# make test-cameras  test with real V4L2 cameras: the kernel's virtual ones, in an emulated machine (Debian, root once)
#
# Everything is installed into .venv, from pyproject.toml. PYTHON chooses the interpreter (3.11 or newer), PIP_FLAGS
# is passed to pip, for example an index that has the CPU build of torch.

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin

IR ?= synthetic:?duration_s=2
RGB ?= synthetic:?duration_s=2

.PHONY: demo test test-cameras lint clean

demo: $(VENV)/.demo
	@mkdir -p out
	$(BIN)/rtfuse fuse '$(IR)' '$(RGB)' -o out/demo.mp4 --picture out/demo.png --fuser student --force

# Two processes share the files: much of the time is waiting, for a frame, a start, a reconnection.
test: $(VENV)/.test
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-cameras: $(VENV)/.test
	tools/camera_vm.sh $(BIN)/python -m pytest -m camera -p no:cacheprovider tests/test_v4l2.py tests/integration/test_view.py tests/integration/test_cameras.py

lint: $(VENV)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rtfuse needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -e '.[view,web,openvino]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -e '.[view,web,openvino,train,export,test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -e '.[view,web,openvino,train,export,test,lint]'
	@touch $@

clean:
	rm -rf $(VENV) out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
