"""What runs inside the profiled process."""
