"""From a GPU operation to the call that launched it and the ranges around that call."""
