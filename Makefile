# Everything runs from a virtual environment of the project's own; `make help` lists the targets.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
ARGS ?=
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup system demo test unit lint types integration e2e faults \
	bench-admission bench-degrade bench-detection bench-learning bench-control bench-llm bench-verdicts bench-ledger bench-page bench-quantization bench-rehearse bench-releases bench-restarts bench-stress mutants test-kubernetes test-vllm test-triton test-servers test-prefect train-policies docs clean

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

$(VENV)/.ready: constraints.txt pyproject.toml scripts/bootstrap
	@scripts/bootstrap $(VENV)

setup: $(VENV)/.ready ## Build the virtual environment

system: ## Find the system's servers (Prometheus, PostgreSQL, Redis); install what is missing when root
	@scripts/system-packages

demo: setup ## Find a real slowdown, fix it, prove it, mail the proof (ARGS="--scenario batch --once")
	@scripts/system-packages prometheus
	@$(PY) -m demo $(ARGS)

test: setup ## Everything CI runs: lint, types, unit and server tests, the loop end to end (batch and steady)
	@scripts/system-packages
	@scripts/triton-wheel .triton || echo "No real Triton here: its tests will be skipped."
	@$(MAKE) --no-print-directory lint types
	@$(PY) -m pytest tests -m "not e2e" -n $(WORKERS) --dist loadfile $(ARGS)
	@$(PY) -m pytest tests/e2e/test_demo.py

unit: setup ## The fast tests alone (no servers, no Airflow, no proving ground)
	@$(PY) -m pytest tests -m "not server and not airflow and not e2e and not faults and not proving" -n $(WORKERS) --dist loadfile $(ARGS)

integration: setup ## Tests on real servers, without the end-to-end loop
	@scripts/system-packages
	@$(PY) -m pytest tests -m "(server or airflow) and not e2e" $(ARGS)

e2e: setup ## Every scenario end to end: all demos, and Celery with a worker that is killed (half an hour; Celery alone takes four minutes)
	@scripts/system-packages
	@scripts/triton-wheel .triton || echo "No real Triton here: its test will be skipped."
	@$(PY) -m pytest tests -m e2e $(ARGS)

lint: setup ## ruff and the import directions
	@$(VENV)/bin/ruff check .
	@env PYTHONPATH=plugins:. $(VENV)/bin/lint-imports --no-cache 2>&1 | tail -n 3; exit $${PIPESTATUS[0]}

types: setup ## mypy --strict, of the benchmarks too
	@$(VENV)/bin/mypy

bench-detection: setup ## Recall, false alarms, delay and cost of the detectors
	@$(PY) -m benchmarks.detection $(ARGS)

bench-learning: setup ## What labels are worth: the re-ranker on families that it has not seen (ARGS="--cases PATH")
	@$(PY) -m benchmarks.learning $(ARGS)

bench-control: setup ## The planner against HPA, ladder, AIMD, random, nothing and an oracle (ARGS=--quick: a little of it)
	@$(PY) -m benchmarks.control $(ARGS)

bench-llm: setup ## Language models: incidents on a simulated server (ARGS="--real --python PATH": predictions on a real vLLM)
	@$(PY) -m benchmarks.llm $(ARGS)

bench-verdicts: setup ## False and true verdicts of the before/after test
	@$(PY) -m benchmarks.verdicts $(ARGS)

bench-ledger: setup ## How fast the history answers with a million records
	@$(PY) -m benchmarks.ledger $(ARGS)

bench-page: setup ## How long the page and /metrics take with 1,000 services and 100,000 records
	@$(PY) -m benchmarks.page $(ARGS)

bench-quantization: setup ## INT8 against FP32: speed, accuracy, engine sizes
	@$(PY) -m benchmarks.quantization $(ARGS)

bench-rehearse: setup ## Rehearsals against what the live loop then achieves (ARGS="--days 30 --services 50": what a month of fifty costs)
	@$(PY) -m benchmarks.rehearse $(ARGS)

bench-releases: setup ## Bad releases named and taken back, harmless ones left alone, in a simulated service
	@$(PY) -m benchmarks.releases $(ARGS)

bench-restarts: setup ## Leaking replicas, real processes under a limit of memory: restarted before it (four minutes)
	@$(PY) -m benchmarks.restarts $(ARGS)

bench-admission: setup ## Goodput with and without the admission lever under three times the load
	@$(PY) -m benchmarks.admission $(ARGS)

bench-stress: setup ## How far off the knee of a stress test is, and how often its interval holds the truth (two minutes)
	@$(PY) -m benchmarks.stress $(ARGS)

bench-degrade: setup ## Goodput with and without the variant lever under three times the load
	@$(PY) -m benchmarks.degrade $(ARGS)

mutants: setup ## Small wrong changes of what decides: how many the quick tests notice (ARGS="--all", "--only planning/ranking")
	@$(PY) -m tests.mutants $(ARGS)

faults: setup ## The fault campaign in full: the loop's functions, the borders, Airflow's own processes (over an hour)
	@scripts/system-packages
	@$(PY) -m tests.faults $(ARGS)
	@$(PY) -m tests.faults --borders
	@$(PY) -m tests.faults --hostile
	@$(PY) -m tests.faults --airflow --fresh

test-kubernetes: setup ## The Kubernetes contract suites against the API server of KUBECONFIG
	@SLOTUNE_TEST_KUBECONFIG="$(KUBECONFIG)" $(PY) -m pytest tests/contracts/test_kubernetes_api.py tests/contracts/test_kubernetes_hpa.py tests/contracts/test_kubernetes_lever.py -rs $(ARGS)

test-vllm: setup ## The preset vllm against a real vLLM on CPU (2.3 GB on disk; SLOTUNE_TEST_VLLM=.../bin/python: one that is there)
	@[ -n "$(SLOTUNE_TEST_VLLM)" ] || scripts/vllm-wheel .vllm
	@$(PY) -m pytest tests/detection/test_real_vllm.py $(ARGS)

test-triton: setup ## Both Triton levers, the queries, the stages and the checks against a real Triton (TRITON=.../bin/tritonserver; default: of a wheel)
	@[ -n "$(TRITON)" ] || scripts/triton-wheel .triton
	@SLOTUNE_TEST_TRITON="$(TRITON)" $(PY) -m pytest tests/tuning/actuators/test_real_triton.py tests/tuning/planning/test_real_stages.py $(ARGS)

test-servers: setup ## The levers for servers of one's own against real ones: Ray Serve, MLServer
	@scripts/model-servers .servers
	@$(PY) -m pytest tests/tuning/actuators/test_real_servers.py -rs $(ARGS)

test-prefect: setup ## The loop as Prefect flows, in a real Prefect in an environment of its own
	@scripts/prefect .prefect
	@$(PY) -m pytest tests/slotune/test_prefect.py -rs $(ARGS)

train-policies: setup ## Train the learned planners `ppo` and `evolved` (half an hour; 1.4 GB in an environment of its own)
	@scripts/policies .policies
	@PYTHONPATH=. .policies/bin/python -m benchmarks.policies $(ARGS)

docs: setup ## Regenerate the references of settings and presets
	@$(PY) -m slotune.reference docs/configuration.md
	@$(PY) -m slotune.preset_reference docs/presets.md

clean: ## Remove the virtual environment and the demo's files
	rm -rf $(VENV) .uv .triton .vllm .servers .prefect .policies .demo build *.egg-info
