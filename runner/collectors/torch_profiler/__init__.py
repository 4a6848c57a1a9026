"""torch.profiler inside the child, written as an export's tables."""
