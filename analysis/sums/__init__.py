"""GPU and host time, counted and added up: by stage, instance, step, module, range, kernel, call."""
