"""The exam: checkpoints in, saved samples out, and every number computed from those samples."""
