"""What every collector is to the launcher and to the profiled program."""
