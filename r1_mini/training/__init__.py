"""The stages: each turns settings and a checkpoint into the next checkpoint."""
