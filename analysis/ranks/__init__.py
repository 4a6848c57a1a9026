"""Several ranks of one run: their collectives paired, who waits for whom, and what makes the late one late."""
