"""Tasks, their rows, and the batches that they become."""
