"""The gate: limits of a policy, held against a comparison of two runs."""
