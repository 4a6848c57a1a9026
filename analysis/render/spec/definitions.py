"""What each number means, in one place: the tooltips of the HTML report and the glossary of the Markdown one."""

from __future__ import annotations

from typing import Final

__all__ = ["DEFINITIONS"]

DEFINITIONS: Final[dict[str, str]] = {
    "stage": "Prefill: the forward pass from tensors on the device to the first logits, vision included. Decode: every "
    "step after that. Reading images and tokenising are in neither.",
    "host_elapsed": "Host elapsed: end − start of the stage's range on the CPU thread that launches, summed over "
    "instances.",
    "projected": "Projected: first start to last end of the GPU operations that an instance launched, summed over "
    "instances.",
    "busy": "GPU busy: union of all GPU operations (kernels, copies, memsets, graphs). Overlap counts once.",
    "busy_share": "GPU busy ÷ host elapsed of the stage. The rest is time in which the GPU had nothing to do.",
    "kernel_sum": "Sum of kernel durations. Kernels that run at the same time count each: a sum, not a time.",
    "all_sum": "Sum of the durations of all GPU operations: kernels, copies, memsets, graphs traced as a whole.",
    "kernels": "Number of kernels that ran.",
    "memcpys": "Number of memory copies, and the sum of their durations.",
    "memsets": "Number of memsets, and the sum of their durations.",
    "graphs": "CUDA graphs that were traced as a whole, and the sum of their durations: the kernels inside are "
    "invisible, so they are counted here and never under kernels.",
    "calls": "How often it ran in this stage.",
    "total": "Sum of the durations.",
    "mean": "Mean duration of one call.",
    "median": "Median duration of one call: half of the calls were faster.",
    "p95": "95 % of the calls took at most this long.",
    "share": "Share of the stage's kernel sum.",
    "category_share": "Share of the stage's time over all GPU operations.",
    "module_share": "Share of the table's GPU operation time.",
    "per_token": "Calls per token: prompt tokens in prefill, emitted steps in decode.",
    "grid": "Blocks per launch (x × y × z), of the most frequent launch shape.",
    "block": "Threads per block (x × y × z), of the most frequent launch shape.",
    "registers": "Registers per thread.",
    "occupancy": "Theoretical occupancy: warps that fit on an SM at once ÷ the most that an SM can hold. The limit set "
    "by registers, shared memory and block size, not a measurement.",
    "waves": "Blocks of the launch ÷ blocks that the whole GPU holds at once. Below 1 a part of the GPU stays empty.",
    "tensor_core": "Whether the kernel uses tensor cores, as far as its name tells.",
    "category": "What the kernel does, by ordered rules on its name.",
    "module": "Module path of the innermost module range around the launching call. Exclusive: time counts once, in "
    "the innermost module.",
    "ttft": "Time to first token: tensors on the device to the first token on the host; reading and tokenising "
    "excluded.",
    "tpot": "Time per output token: (time of the last token − time of the first) ÷ (tokens − 1).",
    "itl": "Inter-token latency: the distribution of single decode steps.",
    "throughput": "Tokens per second of decode time.",
    "profiled": "Measured inside the capture, so it includes what profiling costs.",
    "mfu": "Model FLOP utilisation: FLOPs that the stage needs ÷ (its time × dense peak of its dtype). Multiply-add "
    "counts as 2, experts only where active, attention causal-exact, lm_head once per emitted position.",
    "mfu_full": "The same with attention over the full square, as FLOP counters give it.",
    "mbu": "Memory bandwidth utilisation: bytes that must move (active weights, KV cache read and written) ÷ (time × "
    "peak bandwidth).",
    "intensity": "Arithmetic intensity: FLOPs needed ÷ bytes that must move.",
    "ridge": "Ridge point: peak FLOP/s ÷ peak bytes/s. Left of it bandwidth is the limit, right of it compute.",
    "ideal": "Ideal time: the larger of FLOPs ÷ peak FLOP/s and bytes ÷ peak bytes/s. No faster on this device.",
    "distance": "Time taken ÷ ideal time.",
    "time_base": "Which time the needs are divided by: the unprofiled control run, host elapsed in the capture, or GPU "
    "busy in the capture.",
    "peak": "Dense peaks of the device, and where they come from: specification, derived from clock and SM count, "
    "measured here, or stated by the user.",
    "launches": "Calls that launch a kernel or a CUDA graph.",
    "launch_gap": "Host time from one launch to the next, mean. If it exceeds the mean kernel time, the GPU waits.",
    "queue_delay": "Kernel start − launch start. Small: the GPU was waiting for the host. Large: work was queued up.",
    "mean_kernel": "Mean duration of the stage's kernels.",
    "host_launch": "Host time spent inside launching calls.",
    "synchronise": "Calls in which the host waits for the GPU, and the time spent in them.",
    "small_copies": "Copies of at most 1 KiB from device to host: each carries a decision, and makes the host wait.",
    "concurrency": "Sum of GPU operations ÷ their union. 1: one at a time.",
    "small_grid": "Share of kernel time in kernels with fewer blocks than the device has SMs.",
    "gap": "Time inside the stage's host range in which its GPU was idle.",
    "gap_synchronising": "GPU idle while the host waited in a synchronise or a blocking copy.",
    "gap_launching": "GPU idle while the host was inside a launching call.",
    "gap_other_api": "GPU idle while the host was inside another CUDA call (allocation, module loading, …).",
    "gap_outside_api": "GPU idle while the host was in no CUDA call: Python, the framework, the program.",
    "overhead": "Profiled ÷ unprofiled time of the same inputs.",
    "tokens": "Prompt tokens for prefill, emitted steps for decode.",
    "instances": "How often the stage ran: once per image and pass.",
    "bound": "What limits the stage, judged by stated thresholds; the evidence is beside it.",
    "ceiling": "What removing the top cause can save at most. A ceiling, not a forecast.",
    "metric": "Sampled by the GPU's counters during the capture; mean over the stage's host time.",
    "stream": "CUDA stream on its device.",
    "std": "Standard deviation over the measurements.",
}
"""Key of a number → its definition."""
