"""The process group of a run whose ranks share the model, and the part of each rank in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from attrs import frozen

from analysis.domain.errors import ModelError

__all__ = ["Ranks", "open_ranks"]

_PATIENCE: Final = timedelta(hours=6)
"""How long one rank may wait for the others: the first one stands at the launcher's gate while another run measures."""


@frozen
class Ranks:
    """Where this process stands among those that share the model."""

    count: int = 1
    rank: int = 0
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether it is the one that speaks for all."""
        return self.rank == 0

    @property
    def note(self) -> str | None:
        """For the report; None: there is nothing to say."""
        return (
            None
            if self.count == 1
            else f"{self.count} ranks share the model, layer by layer; times are those of rank 0"
        )

    def device_name(self, asked: str) -> str:
        """Torch's name of this rank's device, where the request asks for ``asked``."""
        return f"cuda:{self.local_rank}" if self.count > 1 and asked.startswith("cuda") else asked

    def meet(self) -> None:
        """Wait until all ranks are here, without the GPU: another program may be measuring on it."""
        if self.count > 1:
            dist.all_reduce(torch.zeros(1))

    def load(self, network_class: Any, folder: Path, **options: Any) -> Any:
        """Load a checkpoint so that this rank holds its share of each layer, by the plan that transformers has for it.

        Raises:
            ModelError: there is no such plan, or the package ``accelerate`` is missing, which transformers asks for here.
        """
        from transformers.distributed.configuration_utils import DistributedConfig

        try:
            return network_class.from_pretrained(
                folder, distributed_config=DistributedConfig(tp_plan="auto"), local_files_only=True, **options
            )
        except (ImportError, ValueError, NotImplementedError, AttributeError, KeyError) as error:
            words = str(error).strip().splitlines()
            if "accelerate" in str(error):
                raise ModelError("--tensor-parallel needs accelerate: pip install 'dsocr-profiler[tp]'") from error
            raise ModelError(
                f"{folder}: transformers cannot divide this model ({words[0] if words else type(error).__name__})"
            ) from error

    def divided(self, network_class: Any, make: Callable[[], Any], folder: Path, **options: Any) -> Any:
        """Divide a network that one rank makes: it is written to ``folder``, and each rank loads its share of it.

        Args:
            network_class: of the network.
            make: makes it whole; called on the first rank only.
            folder: on a disk that all ranks see; removed afterwards.
            **options: of ``from_pretrained``.
        """
        if self.first:
            make().save_pretrained(folder)
        self.meet()
        network = self.load(network_class, folder, **options)
        self.meet()
        if self.first:
            shutil.rmtree(folder, ignore_errors=True)
        return network


@contextmanager
def open_ranks(count: int, device: str) -> Iterator[Ranks]:
    """Join the ranks of a run, which torch's launcher has started.

    Args:
        count: how many the plan wants; 1: there is no group.
        device: of the request.

    Raises:
        ModelError: the process was not started as one of them.
    """
    if count == 1:
        yield Ranks()
        return
    try:
        ranks = Ranks(int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]))
    except (KeyError, ValueError) as error:
        raise ModelError(f"--tensor-parallel {count}: was not started by torchrun") from error
    if ranks.count != count:
        raise ModelError(f"--tensor-parallel {count}: {ranks.count} ranks were started")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
