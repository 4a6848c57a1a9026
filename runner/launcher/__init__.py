"""The torch-free half: from a request to a finished run."""
