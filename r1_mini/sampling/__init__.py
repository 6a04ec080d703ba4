"""The rollout engine: many completions per prompt, through the model's own forward pass."""
