# The commands of the template; `make` alone lists them. Options go in ARGS: `make test ARGS="-m 'not real'"`.

PYTHON ?= python3
SUDO = $(if $(filter 0,$(shell id -u)),,sudo)
# sudo has a PATH of its own, and pytest a folder of temporary files for each user; nothing of root's is left in the checkout.
AS_ROOT = $(if $(SUDO),$(SUDO) --set-home --preserve-env env PATH="$$PATH" USER=root LOGNAME=root PYTHONDONTWRITEBYTECODE=1)
ENVIRONMENTS = PYTHONPATH='{{cookiecutter.project_slug}}/src' $(PYTHON) -m gitops.project.environments

# A worker for each core, up to four; the tests of a file stay together, as they share what takes long to make.
WORKERS = --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# What a shell, or a hook of Git's, has set for other programs does not reach these. Compiled modules halve the start of each
# stage; images of Python often switch them off.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONINSPECT PYTHONOPTIMIZE PYTHONPATH PYTHONSAFEPATH
unexport GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_DIR GIT_GRAFT_FILE GIT_IMPLICIT_WORK_TREE GIT_INDEX_FILE \
  GIT_INTERNAL_SUPER_PREFIX GIT_NO_REPLACE_OBJECTS GIT_OBJECT_DIRECTORY GIT_PREFIX GIT_REPLACE_REF_BASE GIT_SHALLOW_FILE \
  GIT_WORK_TREE
# Files and paths are UTF-8, in the POSIX locale too.
export PYTHONUTF8 = 1
ifneq ($(filter C POSIX,$(LC_ALL)),)
export LC_ALL := C.UTF-8
endif
# A proxy is for other machines: what listens on this one is asked directly.
ifneq ($(strip $(HTTP_PROXY) $(http_proxy) $(HTTPS_PROXY) $(https_proxy) $(ALL_PROXY) $(all_proxy)),)
ifneq ($(or $(no_proxy),$(NO_PROXY)),*)
export no_proxy := $(or $(no_proxy),$(NO_PROXY),localhost),localhost,127.0.0.1,::1
export NO_PROXY := $(no_proxy)
endif
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo example-report test test-gitops test-full test-root packages lint end-to-end fleet lock image-digests propose-locks fresh-issue haproxy FORCE

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: .venv/dev  ## the loop in demo/: generate, train, report, merge, deploy, predict, roll back; drift, retrain
	.venv/dev/bin/python tools/demo.py $(ARGS)

example-report: .venv/dev  ## write docs/example-report.md anew: a pull request's report, with its pictures and model card; uses demo/
	.venv/dev/bin/python tools/example_report.py

# Tests of the server need HAProxy. Root, as in a container, gets it; for others `make packages` installs it.
haproxy:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && ! { command -v /usr/sbin/haproxy && command -v dumb-init; } > /dev/null; then \
	  apt-get update --quiet > /dev/null && apt-get install --quiet --yes --no-install-recommends haproxy dumb-init > /dev/null; \
	fi || echo "HAProxy cannot be installed: tests of the server are skipped"

test: .venv/dev .venv/checkov haproxy  ## generate every supported combination and lint it; run one project and the demo for real
	.venv/dev/bin/python -m pytest $(WORKERS) -m "not full" $(ARGS)

test-gitops: .venv/dev haproxy  ## the tests of the package gitops alone, in a generated project in build/
	@.venv/dev/bin/python tools/test_gitops.py $(ARGS)

test-full: .venv/dev .venv/checkov .venv/moto haproxy  ## the same, and for real each task, DVC remote and image, retraining that is killed, S3, Redis
	.venv/dev/bin/python -m pytest $(WORKERS) $(ARGS)

test-root: .venv/dev  ## what of test-full needs root, by sudo: images are built, and their containers run
	$(AS_ROOT) .venv/dev/bin/python -m pytest $(WORKERS) -p no:cacheprovider -m root $(ARGS)

packages:  ## install what tests start, on Debian or Ubuntu: HAProxy, and for test-full Redis, PostgreSQL, buildah, promtool, amtool
	$(SUDO) apt-get update --quiet
	$(SUDO) apt-get install --quiet --yes --no-install-recommends buildah dumb-init haproxy postgresql prometheus prometheus-alertmanager python3-venv redis-server

lint: .venv/dev  ## format and check every file that Git tracks
	.venv/dev/bin/pre-commit run --all-files $(ARGS)

end-to-end: .venv/dev  ## the demo's loop on a Kubernetes cluster with Argo CD; needs docker, kind and kubectl
	.venv/dev/bin/python tools/end_to_end.py $(ARGS)

fleet:  ## the projects of a GitHub organisation, those that need attention first: build/fleet.html; ORG=... or REPOSITORIES=FILE
	@PYTHONPATH='{{cookiecutter.project_slug}}/src' $(PYTHON) tools/fleet.py

lock:  ## write all locks, the generated project's too; newer versions with ARGS=--upgrade
	$(ENVIRONMENTS) lock $(ARGS)
	@$(ENVIRONMENTS) setup dev
	.venv/dev/bin/python tools/lock.py $(ARGS)

image-digests:  ## put the digest behind each image in k8s/ that has only a tag; asks its registry
	@$(PYTHON) tools/image_digests.py

propose-locks:  ## open a pull request on GitHub with the locks and digests that have changed; needs gh
	@$(PYTHON) tools/propose_locks.py

fresh-issue:  ## tell in an issue on GitHub that the newest versions fail; needs gh
	@$(PYTHON) tools/fresh_issue.py

.venv/%: FORCE
	@$(ENVIRONMENTS) setup $*
