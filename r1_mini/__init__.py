"""The DeepSeek-R1 recipe in miniature: base model, GRPO on rule rewards, and the exam beside it."""
