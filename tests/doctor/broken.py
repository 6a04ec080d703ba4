"""Runs that are broken on purpose: overrides of recipes/tiny/smoke.yaml, and what a doctor has to find first."""

BROKEN: dict[str, tuple[str, list[str]]] = {
    "limit": ("truncated", ["grpo.trainer.max_completion_length=8"]),
    "hot": ("falls apart", ["grpo.trainer.learning_rate=0.1"]),
    "cold": ("nothing moves", ["grpo.trainer.learning_rate=1e-7"]),
    "leash": ("nothing moves", ["grpo.trainer.beta=20.0"]),
    "untrained": ("nothing earns", ["base.trainer.max_steps=3"]),
    "unseen": (
        "steps were never seen",
        [
            *(f"base.{voices}={{direct: 1.0, worked: 0.0, checked: 0.0}}" for voices in ("voices", "early_voices")),
            "base.trainer.max_steps=250",
        ],
    ),
    "foreign": (
        "a language was never seen",
        [
            "base.languages={signs: 0.999, words: 0.001, mixed: 0.0}",
            "base.trainer.max_steps=250",
            "grpo.rewards={accuracy: 1.0, language_words: 1.0}",
        ],
    ),
    "hard": (
        "too hard",
        [
            "grpo.problems=[{family: sum, terms: [8, 9], digits: 2, largest: 99}]",
            "grpo.trainer.max_completion_length=100",
        ],
    ),
    "easy": ("solved already", ["base.voices={direct: 0.0, worked: 1.0, checked: 0.0}"]),
    "upside-down": ("reward without accuracy", ["grpo.rewards={inverted: 1.0}"]),
    "long": ("reward without accuracy", ["grpo.rewards={length: 1.0}", "grpo.trainer.learning_rate=4e-3"]),
    "luck": ("reward without accuracy", ["grpo.rewards={random: 1.0}"]),
    "alike": ("reward without accuracy", ["grpo.rewards={constant: 1.0}"]),
    "noise": ("not sampled as it is", ["grpo.trainer.temperature=3.0"]),
    "narrow": ("not sampled as it is", ["grpo.trainer.top_p=0.5"]),
    "fooled": (
        "reward hacked",
        [
            "grpo.judge=weak",
            "grpo.problems=[{family: sum, terms: [7, 8], digits: 1, largest: 9}]",
            "grpo.trainer.max_completion_length=80",
        ],
    ),
}
