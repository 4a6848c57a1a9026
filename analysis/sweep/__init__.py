"""What the points of a sweep say together: series over the batch, the Pareto front, where the limit changes, in sentences."""
