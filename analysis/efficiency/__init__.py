"""What a stage needs, what the device can give, and what it took: latency, MFU, MBU."""
