"""Hardware counters of kernels: read, joined with a trace, rooflines, reasons, losses and what to do first."""
