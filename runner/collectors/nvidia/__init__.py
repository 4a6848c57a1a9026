"""What NVIDIA's profilers need inside the profiled program."""
