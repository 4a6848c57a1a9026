"""Nsight Systems around the child."""
