# make demo      fuse the synthetic scene, or IR=thermal.mp4 RGB=rgb.mp4, into out/
# make test      run the tests that need no camera and no GPU, but for the slow ones
# make test-slow run the slow tests: training, exports, calibration from footage, whole guides (minutes)
# make bench     print the budgets of tests/bench/test_budgets.py with what this machine measures beside them
# make lint      linters, the type checker, and the prose
# make docs      renew docs/api.md from the docstrings
# make test-packaging  install the wheel, with each extra alone, and run what it is for (minutes)
# make test-container  build the container and run it (needs podman and mmdebstrap, as root)
# make test-cameras    test with real V4L2 cameras: the kernel's virtual ones, in an emulated machine (Debian, root once)
# make newest    the demo and a short set of tests with the newest versions that pyproject.toml allows
# make lock      renew requirements/*.txt, the versions that all of the above but `newest` install
#
# Everything is installed into .venv, from the locks, checked by hash. PYTHON chooses the interpreter (3.11 or newer).
# TORCH=cpu or TORCH=cuda chooses torch's build; without it, a machine where nvidia-smi finds a GPU gets CUDA's.

PYTHON ?= python3
TORCH ?=
VENV := .venv
BIN := $(VENV)/bin
LOCKED := -m pip install --quiet --require-hashes --no-deps --no-build-isolation

IR ?= synthetic:?duration_s=2
RGB ?= synthetic:?duration_s=2
export DEMO = fuse '$(IR)' '$(RGB)' -o out/demo.mp4 --picture out/demo.png --fuser student --force

.PHONY: demo test test-slow bench test-packaging test-container test-cameras lint docs newest lock clean

# A process that dies ends the run: a test of its own must survive what it starts, and xdist's replacement can hang.
TESTS := $(BIN)/pytest -n 2 --max-worker-restart=0 --dist loadfile --no-loadscope-reorder --durations=25

demo: $(VENV)/.demo
	@mkdir -p out
	$(BIN)/rtfuse $(DEMO)

# Two processes share the files: much of the time is waiting, for a frame, a start, a reconnection.
test: $(VENV)/.test
	$(TESTS) -m 'not slow'

test-slow: $(VENV)/.test
	$(TESTS) -m 'slow and not packaging and not container'

test-packaging: $(VENV)/.test
	$(BIN)/pytest -m packaging tests/test_packaging.py

test-container: $(VENV)/.test
	$(BIN)/pytest -m container tests/integration/test_container.py

test-cameras: $(VENV)/.test
	tools/camera_vm.sh $(BIN)/python -m pytest -m camera -p no:cacheprovider tests/capture/test_v4l2.py tests/integration/test_view.py tests/integration/test_cameras.py

bench: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python tests/bench/test_budgets.py

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python tools/prose.py

docs: $(VENV)/.demo
	$(BIN)/python tools/api_page.py

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rtfuse needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python requirements/demo.txt pyproject.toml
	$(BIN)/python $(LOCKED) -r requirements/demo.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: $(VENV)/.demo requirements/dev.txt requirements/torch-cpu.txt requirements/torch-cuda.txt
	@tools/install_torch.sh $(BIN)/python $(TORCH)
	$(BIN)/python $(LOCKED) -r requirements/dev.txt
	@touch $@

# A new environment each time: what is newest changes without a change here. torch stays at the version of the lock.
newest:
	rm -rf $(VENV)-newest
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --upgrade setuptools wheel
	@tools/install_torch.sh $(VENV)-newest/bin/python $(TORCH)
	$(VENV)-newest/bin/python -m pip install --quiet --no-build-isolation -e '.[view,web,train,export,test]'
	$(VENV)-newest/bin/python tools/newest.py

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv==0.13.9
	PATH=$(abspath $(VENV)-lock/bin):$$PATH $(VENV)-lock/bin/python tools/lock.py

clean:
	rm -rf $(VENV) $(VENV)-newest $(VENV)-lock out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
