"""What a recipe would do, said before anything runs: memory, tokens, disk, prompts, and what usually goes wrong."""
