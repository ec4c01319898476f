# The environments live in .venv/ and come from the hashed lock files in .locks/.
# Choose another interpreter with  make table2 PYTHON=python3.12  (3.11 or newer).

# Nothing of this checkout is installed into its environments.
export PYTHONPATH := $(CURDIR):$(CURDIR)/repro:$(CURDIR)/kernels

PYTHON ?= python3
READER := .venv/reader
FULL := .venv/full
DOCS := build/docs

FIGURES := $(basename $(notdir $(wildcard paper/figure*.py)))
TABLES := $(basename $(notdir $(wildcard paper/table[0-9].py)))

.PHONY: help paper figures tables $(FIGURES) $(FIGURES:%=figures/%) $(TABLES) report claims beyond audit theory docs release validate test fuzz bench kill check lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-zA-Z0-9 ]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

paper: $(READER)/done ## Make every table and figure (in build)
	@$(READER)/bin/python -m paper

figures: $(READER)/done ## Make every figure; figures/figure3 makes one
	@$(READER)/bin/python -m paper figures

tables: $(TABLES) ## Print all tables; table2 prints one, table2 SCALE=small+eps4 a variation

$(FIGURES) $(FIGURES:%=figures/%): $(READER)/done
	@$(READER)/bin/python -m paper $(@F)

$(TABLES): $(READER)/done
	@$(READER)/bin/python -m paper.$@ $(if $(SCALE),--scale $(SCALE))

report: $(READER)/done ## Write build/report.html: everything on one page, with an explorer
	@$(READER)/bin/python -m paper.report

claims: $(READER)/done ## Print a verdict on every claim of the paper; PLACEBO=1 tries its rules
	@$(READER)/bin/python -m paper.claims $(if $(PLACEBO),--placebo)

beyond: $(READER)/done ## What the paper does not have: controls, questions of ours, what goes with robustness, GLUE
	@$(READER)/bin/python -m paper.beyond

audit: $(if $(RECOMPUTE),$(FULL),$(READER))/done ## Hold capacity by theory against simulation; RECOMPUTE=1 redoes a layer
	@$(<D)/bin/python -m paper.audit $(if $(RECOMPUTE),--recompute)

theory: $(FULL)/done ## Check Appendix C: errata, verdicts, proofs by machine
	@$(FULL)/bin/python -m paper.appendix_c

# Every public name is imported, as pdoc asks; what numpy means by ArrayLike would take three lines.
define PDOC
import numpy.typing
numpy.typing.ArrayLike = type("ArrayLike", (), {"__module__": "numpy.typing"})
from logit_distributions import *
from pdoc.__main__ import cli
cli()
endef
export PDOC

docs: $(FULL)/done ## Write the pages of both packages' public names to build/docs
	@$(FULL)/bin/python -c "$$PDOC" \
		-d numpy -o $(DOCS) logit_distributions manifold_capacity manifold_capacity.replica \
		'!logit_distributions\.' '!manifold_capacity\.(?!replica)'

release: $(READER)/done ## Sources, results and all weights of the cache in build/release, with checksums
	@$(READER)/bin/python -m paper.release

validate: $(READER)/done ## Check every stored dataset
	@$(READER)/bin/python -m logit_distributions validate data

# Two processes of one thread each; the long files, which tests/conftest.py puts first, begin first.
PYTEST := OMP_NUM_THREADS=1 $(FULL)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
AVX512 := import sys, torch; sys.exit("AVX512" not in torch.backends.cpu.get_cpu_capability())

test: $(FULL)/done ## Run the tests
	$(PYTEST)
	@if $(FULL)/bin/python -c '$(AVX512)'; then \
		echo "What computes with networks once more, as on a processor that knows AVX2 only:"; \
		ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) \
			tests/test_train.py tests/test_stored.py tests/test_capacity.py -k "not official"; \
	fi
	@echo "The kernels once more, uncompiled, where coverage can see every line:"
	@mkdir -p build
	$(FULL)/bin/coverage erase
	NUMBA_DISABLE_JIT=1 OMP_NUM_THREADS=1 $(FULL)/bin/coverage run -m pytest -q -n 2 tests/test_kernels_*.py
	$(FULL)/bin/coverage combine -q
	$(FULL)/bin/coverage report

kill: $(FULL)/done ## Kill runs 100 times at random moments and compare every bit
	$(FULL)/bin/python -m tests.kill

fuzz: $(FULL)/done ## Give 10,000 odd inputs to every public kernel
	$(FULL)/bin/python -m tests.fuzz_kernels

bench: $(FULL)/done ## Time attack, training and kernels beside public alternatives
	$(FULL)/bin/python -m pytest tests/bench --benchmark-only -q -s

check: $(FULL)/done ## Lint, format, types
	$(FULL)/bin/ruff check .
	$(FULL)/bin/ruff format --check .
	$(FULL)/bin/mypy

lock: ## Resolve the lock files anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate pyproject.toml -o .locks/reader.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --extra train --extra certify --extra test --extra check --extra docs --extra cluster \
		pyproject.toml -o .locks/full.txt

clean: ## Remove environments and built files
	rm -rf .venv build

.venv/%/done: .locks/%.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, got: $$($(PYTHON) --version); try PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(@D) (once) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@
