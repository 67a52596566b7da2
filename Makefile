# EXTRAS is remembered in .venv, so that `make test` after `make run EXTRAS=gpu,embedded` keeps the GPU build.
EXTRAS = $(shell cat .venv/.extras 2>/dev/null || echo cpu,embedded)
HOST = 127.0.0.1
PORT = 8000
PYTHON =
FUZZ_SECONDS = 60
INSIGHTFACE = insightface>=2.1,<3
# Many tests wait for servers: two files at a time take little more than half as long.
SIDE_BY_SIDE = -n 2 --dist loadfile

py = .venv/bin/python
pip = $(py) -m pip --disable-pip-version-check
comma = ,
installed = .venv/.installed-$(subst $(comma),+,$(EXTRAS))

.DEFAULT_GOAL := help
.PHONY: help run test check fuzz audit bench pictures clean models

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  variables: PYTHON=/path/to/python3.11+  HOST=$(HOST)  PORT=$(PORT)  EXTRAS=$(EXTRAS)"
	@echo "  make run EXTRAS=gpu,embedded   serve on CUDA (EXTRAS: one of cpu, gpu, openvino; and embedded)"

run: models  ## set everything up and serve on http://127.0.0.1:8000
	@exec $(py) -m server --host "$(HOST)" --port "$(PORT)"

test: models .venv/.dev  ## the same set-up, then the whole test suite
	@$(py) -m pytest $(SIDE_BY_SIDE)

check: models .venv/.dev  ## ruff, mypy --strict and the whole test suite
	@$(py) -m ruff check .
	@$(py) -m ruff format --check .
	@$(py) -m mypy
	@$(py) -m pytest $(SIDE_BY_SIDE)

fuzz: models .venv/.dev  ## feed made-up files to the readers of pictures and galleries; FUZZ_SECONDS=60
	@PYTHONPATH=. $(py) tests/fuzz/campaign.py $(FUZZ_SECONDS)

audit: $(installed)  ## look for known weaknesses in what is installed (asks the package index)
	@$(py) -m venv .venv/audit
	@.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@.venv/audit/bin/pip-audit --path "$$($(py) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

BENCHMARKS = analyze pictures large_photos throughput providers service dual start memory pkl_search pgvector_search agreement hostile_galleries

bench: models .venv/.dev  ## measure this machine and write benchmarks/results (never part of the tests)
	@missed=""; for one in $(BENCHMARKS); do \
	    echo "== python -m benchmarks.$$one"; \
	    $(py) -m benchmarks.$$one || missed="$$missed $$one"; \
	done; \
	if [ -n "$$missed" ]; then echo "missed a target or failed:$$missed"; exit 1; fi

pictures: models .venv/.dev  ## make the README's pictures in docs/images anew (needs a browser)
	@$(py) -m pytest tests/browser/readme_pictures.py

clean:  ## remove .venv, caches and build products; data/ stays
	@rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find convert runtime matchers server models tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

models: $(installed)
	@$(py) -m convert fetch

# .venv/.unfinished is there while packages are written: a .venv that was interrupted half-way is made anew, since pip
# cannot repair packages without their records. A .venv that somebody made by hand is kept.
$(installed): pyproject.toml
	@if [ -e .venv/.unfinished ]; then rm -rf .venv; fi
	@if ! $(py) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    rm -rf .venv; \
	    chosen=""; \
	    for candidate in "$(PYTHON)" $(if $(PYTHON),,python3 python3.13 python3.12 python3.11); do \
	        if [ -n "$$candidate" ] && "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	                >/dev/null 2>&1; then chosen="$$candidate"; break; fi; \
	    done; \
	    if [ -z "$$chosen" ]; then \
	        echo "No Python 3.11 or newer with the venv module was found. Install one" \
	             "(Debian and Ubuntu: python3 and python3-venv) or name it: make run PYTHON=/path/to/python3" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making .venv with $$("$$chosen" --version) ..."; \
	    "$$chosen" -m venv .venv; \
	fi
	@touch .venv/.unfinished
	@rm -f .venv/.installed-* .venv/.dev .venv/.extras
	@echo "Installing packages ($(EXTRAS)) into .venv; the first time this takes a minute or two ..."
	@for runtime in onnxruntime onnxruntime-gpu onnxruntime-openvino; do \
	    case ",$(EXTRAS),$$runtime" in \
	        *,cpu,*onnxruntime|*,gpu,*onnxruntime-gpu|*,openvino,*onnxruntime-openvino) ;; \
	        *) $(pip) uninstall --quiet --yes $$runtime 2>/dev/null ;; \
	    esac; \
	done
	@$(pip) install --quiet --editable ".[$(EXTRAS),report]"
	@$(pip) install --quiet --no-deps "$(INSIGHTFACE)"
	@echo "$(EXTRAS)" > .venv/.extras
	@rm .venv/.unfinished
	@touch "$@"

.venv/.dev: $(installed)
	@echo "Installing the tools for tests and checks ... (pip complains that insightface wants opencv-python:" \
	    "opencv-python-headless takes its place)"
	@touch .venv/.unfinished
	@$(pip) install --quiet --editable ".[$(EXTRAS),report,dev]"
	@rm .venv/.unfinished
	@touch "$@"
