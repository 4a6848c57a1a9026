"""What a gate found: for a terminal, a pull request, a test report and a benchmark history."""
