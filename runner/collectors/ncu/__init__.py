"""Nsight Compute: hardware counters of single kernels, collected from a second run of the same program."""
