"""Terms that are no column of a table, or of several, each defined once. Columns of one table define themselves there."""

from __future__ import annotations

from typing import Final

__all__ = ["GLOSSARY", "TERMS"]

GLOSSARY: Final[dict[str, str]] = {
    "stage": "Prefill: the forward pass from tensors on the device to the first logits, vision included. Decode: every "
    "step after that. Reading images and tokenising are in neither.",
    "step_kind": "Kind of an engine's step: prefill (prompts only), decode (running requests only), mixed (both at once), empty "
    "(no request), or step, where its name does not tell. A mixed step is in no other stage.",
    "stalled": "Steps of an engine in which the GPU idles more than ten times as long as a usual step of the kind lasts: a "
    "compilation, a graph that is recorded. Sums hold them; medians, utilisation and verdicts do not.",
    "queued": "How long the GPU still worked on earlier steps when the step began: 0 where the host did not run ahead.",
    "between_steps": "Host time from the end of the step before on its thread to the start of this one: scheduling, sampling, "
    "output.",
    "prefill_tokens": "New positions of prompts.",
    "decode_tokens": "New positions of running requests.",
    "graph_launches": "Launches of a CUDA graph.",
    "host_elapsed": "Host elapsed: end − start of the range on the CPU thread that launches, summed over instances.",
    "projected": "Projected: first start to last end of the GPU operations that an instance launched, summed over "
    "instances.",
    "busy": "GPU busy: union of all GPU operations (kernels, copies, memsets, graphs). Overlap counts once.",
    "elapsed": "Elapsed: from the start of the range to the moment at which range and GPU work have both ended, summed over "
    "instances. The host may leave a stage while the GPU works on.",
    "busy_share": "GPU busy ÷ time, medians per image or token: of the time without the profiler where a control run "
    "measured it, for profiling slows the host and not the kernels; else, and on a CPU, of the profiled time. At most 100 %.",
    "kernel_sum": "Sum of kernel durations. Kernels that run at the same time count each: a sum, not a time.",
    "all_sum": "Sum of the durations of all GPU operations: kernels, copies, memsets, graphs traced as a whole.",
    "kernels": "Number of kernels that ran.",
    "memcpys": "Number of memory copies, and the sum of their durations.",
    "memsets": "Number of memsets, and the sum of their durations.",
    "graphs": "CUDA graphs that were traced as a whole, and the sum of their durations: the kernels inside are "
    "invisible, so they are counted here and never under kernels.",
    "calls": "How often it ran in this stage.",
    "total": "Sum of the durations.",
    "median": "Median duration of one call: half of the calls were faster.",
    "kernel": "What the kernel does, in words, as far as its name tells.",
    "kernel_name": "Name of the kernel, template arguments and all.",
    "kernel_words": "The rule's description of the kernel.",
    "kernel_short_name": "Name without template arguments.",
    "kernel_share": "Share of the stage's kernel sum.",
    "mean_call": "Mean duration of one call.",
    "fastest_call": "Duration of the fastest call.",
    "slowest_call": "Duration of the slowest call.",
    "grid": "Blocks per launch (x × y × z).",
    "block": "Threads per block (x × y × z).",
    "registers": "Registers per thread.",
    "shared_memory": "Shared memory per block, static and dynamic.",
    "module": "Module path of the innermost module range around the launching call. Exclusive: time counts once, in "
    "the innermost module.",
    "category": "What the kernel does, by ordered rules on its name.",
    "module_folded": "Module path, layer numbers folded.",
    "calls_per_unit": "Launches per token of decode, per image or prompt of prefill.",
    "kernel_time_per_unit": "Kernel time per token of decode, per image or prompt of prefill.",
    "dram_share": "Bytes from and to DRAM ÷ (time in the trace × peak bandwidth).",
    "tensor_share": "Tensor-core operations at the dense peak of their type ÷ time in the trace.",
    "cuda_core_share": "CUDA-core operations (a fused multiply-add is two) ÷ (time in the trace × fp32 peak).",
    "kernel_ceiling_per_unit": "Time of the covered launches above their roofline: the most that faster kernels could save. Per "
    "token of decode, per image or prompt of prefill.",
    "ttft": "Time to first token: tensors on the device to the first token on the host; reading and tokenising "
    "excluded.",
    "tpot": "Time per output token: (time of the last token − time of the first) ÷ (tokens − 1).",
    "itl": "Inter-token latency: the distribution of single decode steps.",
    "throughput": "Tokens per second of decode time.",
    "profiled": "Measured inside the capture, so it includes what profiling costs.",
    "mfu": "Model FLOP utilisation: FLOPs that the stage needs ÷ (its time × dense peak of its dtype). Multiply-add "
    "counts as 2, experts only where active, attention causal-exact, lm_head once per emitted position.",
    "mbu": "Memory bandwidth utilisation: bytes that must move (active weights, KV cache read and written) ÷ (time × "
    "peak bandwidth).",
    "time_base": "Which time the needs are divided by. Unprofiled: one typical pass of the control run, each image by its "
    "median. Profiled: the captured instances, until range and GPU work have ended. Profiled, GPU busy: the union of their "
    "GPU operations.",
    "launches": "Calls that launch a kernel or a CUDA graph.",
    "queue_delay": "Kernel start − launch start. Small: the GPU was waiting for the host. Large: work was queued up.",
    "synchronise": "Calls in which the host waits for the GPU, and the time spent in them.",
    "gap": "Time inside the stage's host range in which its GPU was idle.",
    "longest_gap": "Longest single time in which the stage's GPU was idle.",
    "gap_synchronising": "GPU idle while the host waited in a synchronise or a blocking copy.",
    "gap_draining": "GPU idle behind a synchronise that returned to an idle GPU, until its next operation began, whatever the "
    "host did meanwhile: the synchronise let the queue run dry.",
    "gap_in_graph": "GPU idle between two operations of one CUDA graph replay: the GPU's own time from node to node.",
    "gap_launching": "GPU idle while the host was inside a launching call, and no synchronise had drained it.",
    "gap_other_api": "GPU idle while the host was inside another CUDA call (allocation, module loading, …), and no "
    "synchronise had drained it.",
    "gap_outside_api": "GPU idle while the host was in no CUDA call – Python, the framework, the program – and no "
    "synchronise had drained it.",
    "range_name": "Domain and name of the ranges; of the default domain, the name alone.",
    "range_style": "PushPop: ranges that nest on their thread; StartEnd: ranges that may end elsewhere.",
    "overhead": "Profiled ÷ unprofiled time of the same inputs, medians of both; timed by the program itself where the run's "
    "record holds it, else by the trace's ranges.",
    "bound": "What limits the stage: the largest term of its budget, or of its idle time where the "
    "GPU idles longer than it works. The next one is named with it, and the evidence is beside it.",
    "ceiling": "What the first action can save at most. A ceiling, not a forecast.",
    "metric": "Sampled by the GPU's counters during the capture; mean over the stage's host time.",
    "image_index": "Number of the image or prompt around it.",
    "pass_index": "Which time it is, from 0, that its process ran this stage of this image.",
    "at_start": "Waiting in collectives that open the capture: before them nothing says when the ranks stood together, for each "
    "rank's capture begins at a moment of its own. Collectives are transfer + waiting + this.",
    "rank": "Place of its process, by process id, among those that have stages.",
    "rank_number": "Number of the rank, from 0: by the numbers in its trace's name, or by its place in a trace of several.",
    "transfer": "Time in collectives as far as the same calls last on the rank that comes last: about what the transfer takes.",
    "waiting": "Time in collectives beyond that: the rank waits inside them for one that is late. No communication.",
    "step_index": "Number of the decode step in its instance, from 0.",
    "base_latency": "Median on the base, per unit of the stage's work: an image or prompt of prefill, a token of decode.",
    "new_latency": "Median on the new side, per unit of the stage's work.",
    "latency_difference": "Median on the new side − median on the base: more than 0 is slower.",
    "relative_difference": "Difference ÷ base; from twice the base on, new ÷ base.",
    "part_difference": "New − base.",
    "answer": "Regression or improvement: the interval leaves out 0 and the difference exceeds the A/A band. Equal: it is inside "
    "the band. Cannot judge: the settings, too few repetitions or a band that is only assumed do not allow it.",
    "explained": "Share of the difference that its parts other than the rest add up to, where that can be checked; what is missing "
    "to 100 %, or beyond it, is the rest.",
    "aa_band": "A/A band: by how much unchanged runs of the stage on the machine differ.",
    "pid": "Process id.",
    "tid": "Thread id, as the operating system numbers it.",
}
"""Term → what it means."""

TERMS: Final[dict[str, str]] = {
    "stage (prefill, decode)": "stage",
    "host elapsed": "host_elapsed",
    "projected": "projected",
    "GPU busy": "busy",
    "elapsed": "elapsed",
    "GPU busy share": "busy_share",
    "kernel sum": "kernel_sum",
    "CUDA graph, traced as a whole": "graphs",
    "module": "module",
    "module, folded": "module_folded",
    "category": "category",
    "TTFT": "ttft",
    "TPOT": "tpot",
    "ITL": "itl",
    "throughput": "throughput",
    "transfer (in collectives)": "transfer",
    "waiting (in collectives)": "waiting",
    "profiled": "profiled",
    "overhead": "overhead",
    "MFU": "mfu",
    "MBU": "mbu",
    "time base": "time_base",
    "launch": "launches",
    "step kind": "step_kind",
    "stalled step": "stalled",
    "queued before a step": "queued",
    "host between steps": "between_steps",
    "prefill tokens": "prefill_tokens",
    "decode tokens": "decode_tokens",
    "launches of graphs": "graph_launches",
    "queue delay": "queue_delay",
    "synchronise": "synchronise",
    "gap": "gap",
    "gap: waiting in a synchronise": "gap_synchronising",
    "gap: behind a synchronise (drain)": "gap_draining",
    "gap: inside a CUDA graph": "gap_in_graph",
    "gap: launching": "gap_launching",
    "gap: in another CUDA call": "gap_other_api",
    "gap: in Python and the framework": "gap_outside_api",
    "bound": "bound",
    "ceiling": "ceiling",
    "start of the capture": "at_start",
    "answer (of a comparison)": "answer",
    "A/A band": "aa_band",
    "explained (of a difference)": "explained",
    "rank": "rank",
    "range style": "range_style",
    "DRAM share": "dram_share",
    "tensor-core share": "tensor_share",
    "CUDA-core share": "cuda_core_share",
}
"""Term as a reader looks it up → its key in `GLOSSARY`; docs/glossary.md lists them."""
