"""The policy: its tokenizer, its shape, how it is optimized, loaded and saved."""
