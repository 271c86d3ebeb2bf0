"""Several processes that train one model: PyTorch's torchrun starts them, DistributedDataParallel keeps them equal.

On one machine `train.processes` is their number, and the training starts torchrun on itself. On several, each starts
the training with torchrun's variables (PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT, perhaps
PET_NPROC_PER_NODE), as Kubeflow Trainer sets them, and `train.processes` is the number of all processes. A process that
is killed has all of them start again, from the last checkpoint.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from gitops.core import artifacts, threads
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo

#: How often all processes are started again after one of them has failed, unless PET_MAX_RESTARTS says so.
RESTARTS = 1

#: Names a file that is there once a process has failed for a reason that would stop the next one too.
FAILED = "TRAINING_FAILED"


def rank() -> int:
    """Return the number of this process among all, from 0 on."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def first() -> bool:
    """Tell whether this is the process that writes, logs and prints."""
    return rank() == 0


def run(train: Callable[[], None], module: str, processes: int, device: torch.device) -> int:
    """Run `train` in so many processes, and return the exit status: here if it is one, else in those that torchrun
    starts with `module`, whose call of this function then runs it.

    Raises ProjectError where torchrun's variables mean another number, there are too few GPUs for `device`, or a
    process was killed too often; and whatever `train` raises.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _member(train, processes, device)
        return 0
    nodes = _number("PET_NNODES", 1)
    here = _number("PET_NPROC_PER_NODE", max(1, processes // nodes))
    _check(nodes * here, processes)
    if processes == 1:
        train()
        return 0
    if device.type == "cpu" and here > threads.cores():
        echo(
            f"warning: train.processes starts {here} processes on a machine of {threads.cores()} cores: they wait "
            "for each other, and each takes memory",
            error=True,
        )
    return _launch(module, nodes, here)


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else default


def _check(started: int, processes: int) -> None:
    if started != processes:
        raise ProjectError(
            f"train.processes is {processes}, but {started} processes are started (nodes times processes on each): "
            f"set it to {started}, or change the nodes"
        )


def _member(train: Callable[[], None], processes: int, device: torch.device) -> None:
    """Run `train` as one of torchrun's processes."""
    _check(int(os.environ["WORLD_SIZE"]), processes)
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ProjectError(
                f"train.processes needs {os.environ['LOCAL_WORLD_SIZE']} GPUs on this machine, which has "
                f"{torch.cuda.device_count()}: lower it, or set train.device to cpu"
            )
        torch.cuda.set_device(local)
    failed = Path(os.environ.get(FAILED, os.devnull + "/none"))
    if failed.exists():
        raise SystemExit(1)
    store, number, count = next(rendezvous("env://"))
    # All starts share torchrun's store, which still has the addresses of the processes that were killed.
    store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        train()
    except ProjectError:
        failed.touch()
        raise
    except KeyboardInterrupt:  # torchrun's process says so, and once
        raise SystemExit(130) from None
    except RuntimeError as error:
        if "by peer" in str(error):  # gloo's: another process has ended, which says why
            raise SystemExit(1) from error
        raise
    distributed.destroy_process_group()


def _launch(module: str, nodes: int, here: int) -> int:
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("PET_MAX_RESTARTS", str(RESTARTS))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of what `parallel` does on purpose
    os.environ.setdefault("OMP_NUM_THREADS", str(threads.share(artifacts.TRAIN, here)))
    where = ["--standalone", "--local-addr=localhost"] if nodes == 1 else [f"--nnodes={nodes}"]
    logging.getLogger("torch.distributed.elastic.multiprocessing.errors").setLevel(logging.CRITICAL)
    for name in ("agent.server.api", "multiprocessing.api"):  # they warn of a signal, at length
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FAILED] = os.path.join(folder, "failed")
        try:
            torchrun.main([*where, f"--nproc-per-node={here}", "--module", module])
        except ChildFailedError as error:
            for number, failure in error.failures.items():
                if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # torchrun's, to the others
                    raise ProjectError(
                        f"process {number} of the training was ended by {failure.signal_name()}: "
                        "is there memory enough for train.processes?"
                    ) from None
            return 1  # the process has said why
        except SignalException as signalled:  # all processes are stopped
            if signalled.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            return 128 + signalled.sigval
    return 0


def parallel(model: nn.Module) -> nn.Module:
    """Return what trains `model`: itself, or among several processes a module that averages their gradients."""
    if world() == 1:
        return model
    # A network may leave parameters unused. And without this, gradients would be added in another order from the second
    # step on: a training that was killed would not end with the weights of an unbroken one.
    return nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False, find_unused_parameters=True)


def align(model: nn.Module) -> None:
    """Give every process the first one's buffers, which a network may change while it learns."""
    if world() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def total(value: torch.Tensor | float, device: torch.device) -> float:
    """Return the sum of the processes' values, the same in each."""
    if world() == 1:
        return float(value)
    found = torch.as_tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(found)
    return float(found)


def from_first(value: Any) -> Any:
    """Return the first process's value in every process."""
    if world() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]
