"""A tensor-parallel decoder with random weights: one process a GPU, two all-reduces a layer, plain NVTX ranges.

``torchrun --nproc-per-node 2 tp_decoder.py`` runs it; without a GPU it is tiny and runs on gloo. The options plant what a
profiler is to find: ``--sleep-every 8`` lets rank 1 sleep for 2 ms at every eighth step, ``--spin-cycles N`` gives its
prefills two kernels more per layer, which do nothing for N cycles.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, NamedTuple

import nvtx
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

cuda: Any = torch.cuda
STAGES, MODULES = "dsocr", "dsocr.module"
SLEEP_S = 0.002


class Sizes(NamedTuple):
    """Of the model and of the run."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    prompt: int
    steps: int
    pages: int = 2


FULL = Sizes(layers=24, hidden=4096, heads=32, intermediate=14336, vocabulary=32000, prompt=4096, steps=64)
TINY = Sizes(layers=2, hidden=64, heads=4, intermediate=128, vocabulary=100, prompt=16, steps=4)


class Decoder:
    """One rank's share of the model, and what decode needs between steps."""

    def __init__(self, sizes: Sizes, device: torch.device, spin_cycles: int) -> None:
        self.sizes, self.device, self.spin_cycles = sizes, device, spin_cycles
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        world = dist.get_world_size()
        self.heads, self.width = sizes.heads // world, sizes.hidden // sizes.heads
        mine = self.heads * self.width
        self.layers = [
            {
                "qkv": self.weights(sizes.hidden, 3 * mine),
                "out": self.weights(mine, sizes.hidden),
                "up": self.weights(sizes.hidden, 2 * sizes.intermediate // world),
                "down": self.weights(sizes.intermediate // world, sizes.hidden),
            }
            for _ in range(sizes.layers)
        ]
        self.embedding = self.weights(sizes.vocabulary, sizes.hidden)
        self.head = self.weights(sizes.hidden, sizes.vocabulary // world)

    def weights(self, *shape: int) -> Tensor:
        """Random ones."""
        return torch.randn(*shape, device=self.device, dtype=self.dtype) * 0.02

    def new_cache(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, for all positions."""
        shape = (self.sizes.prompt + self.sizes.steps, self.heads, self.width)
        return [
            (
                torch.zeros(shape, device=self.device, dtype=self.dtype),
                torch.zeros(shape, device=self.device, dtype=self.dtype),
            )
            for _ in self.layers
        ]

    def queries_keys_values(self, x: Tensor, layer: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Of this rank's heads."""
        return (x @ layer["qkv"]).view(x.shape[0], 3, self.heads, self.width).unbind(1)

    def mixed(self, x: Tensor, attended: Tensor, layer: dict[str, Tensor]) -> Tensor:
        """Output projection of attention; its all-reduce."""
        y = attended[0].transpose(0, 1).reshape(x.shape[0], -1) @ layer["out"]
        self.all_reduce(y, prefill=x.shape[0] > 1)
        return x + y

    def fed_forward(self, x: Tensor, layer: dict[str, Tensor]) -> Tensor:
        """The gated MLP; its all-reduce."""
        gate, up = (x @ layer["up"]).chunk(2, -1)
        y = (silu(gate) * up) @ layer["down"]
        self.all_reduce(y, prefill=x.shape[0] > 1)
        return (x + y) * 0.5

    def all_reduce(self, y: Tensor, *, prefill: bool) -> None:
        """Add up what the ranks have."""
        if self.spin_cycles and prefill and dist.get_rank() == 1:
            cuda._sleep(self.spin_cycles)  # the planted kernel: spins on the GPU
        dist.all_reduce(y)

    def forward(self, tokens: Tensor, cache: list[tuple[Tensor, Tensor]], at: int) -> int:
        """Eagerly: tokens from position ``at`` on; the next token."""
        x, count = self.embedding[tokens], tokens.shape[0]
        for number, (layer, (keys, values)) in enumerate(zip(self.layers, cache, strict=True)):
            with nvtx.annotate(f"layers.{number}.self_attn", domain=MODULES):
                query, key, value = self.queries_keys_values(x, layer)
                keys[at : at + count], values[at : at + count] = key, value
                k, v = (part[: at + count].transpose(0, 1)[None] for part in (keys, values))
                x = self.mixed(
                    x, scaled_dot_product_attention(query.transpose(0, 1)[None], k, v, is_causal=count > 1), layer
                )
            with nvtx.annotate(f"layers.{number}.mlp", domain=MODULES):
                x = self.fed_forward(x, layer)
        with nvtx.annotate("lm_head", domain=MODULES):
            return int((x[-1:] @ self.head).argmax(-1)[0])


class Replayed:
    """One decode step recorded as a CUDA graph: token and position are tensors, attention covers the whole static cache."""

    def __init__(self, model: Decoder) -> None:
        self.model, self.cache = model, model.new_cache()
        self.token, self.at, self.best = (
            torch.zeros(1, dtype=torch.long, device=model.device) for _ in range(3)
        )  # static, as a graph needs them
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(3):
                self.step()
        cuda.current_stream().wait_stream(side)
        cuda.synchronize()
        self.graph = cuda.CUDAGraph()
        with cuda.graph(self.graph):
            self.step()

    def step(self) -> None:
        """One step, as it is recorded."""
        model = self.model
        x = model.embedding[self.token]
        for layer, (keys, values) in zip(model.layers, self.cache, strict=True):
            query, key, value = model.queries_keys_values(x, layer)
            keys.index_copy_(0, self.at, key)
            values.index_copy_(0, self.at, value)
            k, v = (part.transpose(0, 1)[None] for part in (keys, values))
            x = model.mixed(x, scaled_dot_product_attention(query.transpose(0, 1)[None], k, v), layer)
            x = model.fed_forward(x, layer)
        self.best.copy_((x @ model.head).argmax(-1))

    def next(self, token: int, at: int) -> int:
        """Replay it for a token at a position; the next token."""
        self.token.fill_(token)
        self.at.fill_(at)
        self.graph.replay()
        return int(self.best)


def page(model: Decoder, image: int, replayed: Replayed | None, sleep_every: int) -> None:
    """Prefill and decode of one page, with their ranges."""
    sizes = model.sizes
    cache = model.new_cache() if replayed is None else replayed.cache
    prompt = torch.arange(sizes.prompt, device=model.device) % sizes.vocabulary
    with nvtx.annotate(f"image[{image}]", domain=STAGES):
        with nvtx.annotate("prefill", domain=STAGES, payload=sizes.prompt):
            token = model.forward(prompt, cache, 0)
        with nvtx.annotate("decode", domain=STAGES, payload=sizes.steps):
            for step in range(sizes.steps):
                at = sizes.prompt + step
                with nvtx.annotate(
                    "decode_step", domain=STAGES, payload=at + 1
                ):  # tokens in context, this one included
                    if sleep_every and dist.get_rank() == 1 and step % sleep_every == sleep_every - 1:
                        time.sleep(SLEEP_S)  # the planted one
                    token %= sizes.vocabulary
                    if replayed is None:
                        token = model.forward(torch.tensor([token], device=model.device), cache, at)
                    else:
                        token = replayed.next(token, at)


def main() -> None:
    """Warm up, then run the pages between the profiler's start and stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda-graph", action="store_true", help="replay decode from a CUDA graph")
    parser.add_argument("--sleep-every", type=int, default=0, help="rank 1 sleeps for 2 ms at each such step")
    parser.add_argument("--spin-cycles", type=int, default=0, help="of each planted kernel in the prefills of rank 1")
    options: Any = parser.parse_args()
    on_gpu = cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        cuda.set_device(device)
    torch.manual_seed(dist.get_rank())
    with torch.no_grad():
        model = Decoder(FULL if on_gpu else TINY, device, options.spin_cycles if on_gpu else 0)
        replayed = Replayed(model) if options.cuda_graph and on_gpu else None
        for image in range(2):
            page(model, image, replayed, options.sleep_every)
        dist.barrier()
        if on_gpu:
            cuda.synchronize()
            cuda.profiler.start()
        began = time.perf_counter()
        for image in range(model.sizes.pages):
            page(model, image, replayed, options.sleep_every)
        if on_gpu:
            cuda.synchronize()
        sys.stdout.write(f"rank {dist.get_rank()}: {time.perf_counter() - began:.4f} s\n")
        if on_gpu:
            cuda.profiler.stop()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
