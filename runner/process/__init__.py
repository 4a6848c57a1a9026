"""Programs, their environment, and what the driver says of the machine."""
