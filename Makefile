# make demo   train, evaluate and report on the embedded models (creates .venv first)
# make test   lint, types and all tests (creates .venv first)
# make docs   the documentation, in build/site
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs env picture wheel lowest coverage clean

demo: env
	$(BIN)/softspoken train --output runs/demo --overwrite true

test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyrefly check --output-format min-text
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# build/site/index.html: the tutorials are run, a warning is an error, and a link must lead somewhere. So many processes that each has few
# pages, and no two tutorials wait for one another.
docs: env
	rm -rf build/site
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -T -b html -W --keep-going -j 16 docs build/site
	$(BIN)/python docs/_ext/links.py build/site

# The README's picture: the demo's report in headless Chromium (Debian: apt-get install chromium).
picture:
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1500 --virtual-time-budget=8000 \
	  --user-data-dir=$$(mktemp -d) --screenshot=docs/report.png file://$(CURDIR)/runs/demo/report.html

# dist/: the sdist, and the wheel made from it; then the wheel in an environment of its own, which trains a step.
wheel: env
	rm -rf dist .work/wheel
	$(BIN)/python -m build --quiet
	$(PYTHON) -m venv .work/wheel
	.work/wheel/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.work/wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd .work && wheel/bin/softspoken doctor

# The tests with the oldest release of each library that pyproject.toml lets in, those of the extras too.
EXTRAS := ctranslate2 demo docs judges serve sweep track
lowest: env
	rm -rf .work/lowest && mkdir -p .work
	$(BIN)/uv venv --quiet --python $(BIN)/python .work/lowest
	$(BIN)/uv pip compile --quiet --resolution lowest-direct pyproject.toml $(EXTRAS:%=--extra %) --python .work/lowest \
	  --output-file .work/lowest.txt
	$(BIN)/uv pip install --quiet --python .work/lowest --constraints .work/lowest.txt --editable ".[dev]"
	.work/lowest/bin/python -m pytest tests/unit tests/component

coverage: env
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

env: .venv/installed

# torch comes first and by version: left to the resolver, a newer one would bring gigabytes of CUDA.
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
