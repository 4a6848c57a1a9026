"""Run an annotated prefill and decode under a profiler and collect its trace."""
