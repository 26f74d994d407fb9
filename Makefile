# make train   install what is pinned into .venv and train on Memory Maze (more options: ARGS="--seed 1")
# make test    the fast tests        make lint    formatting, lint, types
# make bench   speed of environments and of one update        make setup   .venv with all that these need
# make screenshots   docs/images: the page of eval.play and a report (of given runs: ARGS="--runs RUN [RUN ...]")

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# One stamp for each set of extras: quick when neither file changed.
TRAIN_STAMP := $(VENV)/.stamp-train
TEST_STAMP := $(VENV)/.stamp-test
SETUP_STAMP := $(VENV)/.stamp-setup
PINS := pyproject.toml constraints.txt
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q
ARGS ?=

.PHONY: help setup train test lint bench screenshots opengl browser

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

$(BIN)/python:
	@python=; \
	for candidate in python3.11 python3.12 python3; do \
		if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; \
		then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "Python 3.11 or 3.12 is needed, and neither is on the PATH" >&2; exit 1; fi; \
	$$python -m venv $(VENV)

# torch goes first and alone, so that nothing draws in another build of it.
$(TRAIN_STAMP): $(PINS) | $(BIN)/python
	$(PIP) torch==2.13.0
	$(PIP) -e . -c constraints.txt
	@touch $@

$(TEST_STAMP): $(TRAIN_STAMP)
	$(PIP) -e '.[test]' -c constraints.txt
	@touch $@

# Not the atari extra: ale-py is under the GPL.
$(SETUP_STAMP): $(TEST_STAMP)
	$(PIP) -e '.[test,wandb]' -c constraints.txt
	@touch $@

setup: $(SETUP_STAMP)

opengl: | $(BIN)/python
	@works() { $(BIN)/python -c 'from envs.rendering import choose_gl; choose_gl()' 2>/dev/null; }; \
	if works; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing headless OpenGL: libegl1 libgl1-mesa-dri"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y libegl1 libgl1-mesa-dri >/dev/null; \
		if works; then exit 0; fi; \
	fi; \
	echo "Memory Maze needs headless OpenGL. Run: sudo apt-get install -y libegl1 libgl1-mesa-dri" >&2; exit 1

browser:
	@works() { command -v chromium >/dev/null && command -v chromedriver >/dev/null; }; \
	if works; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing a browser: chromium chromium-driver"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium chromium-driver >/dev/null; \
		if works; then exit 0; fi; \
	fi; \
	echo "The page's tests need a browser. Run: sudo apt-get install -y chromium chromium-driver" >&2; exit 1

train: $(TRAIN_STAMP) opengl
	$(BIN)/python train_agent.py --env MemoryMaze $(ARGS)

test: $(TEST_STAMP) opengl browser
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile $(ARGS)

lint: $(TEST_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(TRAIN_STAMP) opengl
	$(BIN)/python -m eval.benchmark envs $(ARGS)
	$(BIN)/python -m eval.benchmark update $(ARGS)

screenshots: $(TEST_STAMP) browser
	$(BIN)/python -m eval.screenshots $(ARGS)
