"""Library warnings go to the run's log file: on the screen, only what the user can act on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def quiet(path: Path) -> Iterator[None]:
    """Within the block, Python warnings and every library's log records go to the file and nowhere else."""
    import datasets
    import transformers

    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    moved = [(logger, logger.handlers[:]) for logger in _loggers() if logger.handlers]
    for logger, handlers in moved:
        for old in handlers:
            logger.removeHandler(old)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # on a full disk the run says so once; each log line need not
    transformers.logging.disable_progress_bar()
    transformers.logging.disable_default_handler()
    transformers.logging.enable_propagation()
    datasets.disable_progress_bars()
    datasets.logging.enable_propagation()
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.raiseExceptions = True
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()
        for logger, handlers in moved:
            for old in handlers:
                logger.addHandler(old)


def _loggers() -> list[logging.Logger]:
    named = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    return [logging.getLogger(), *named]


@contextmanager
def silent() -> Iterator[None]:
    """Within the block, what libraries log or warn below an error is dropped; for commands that have no run folder."""
    import transformers

    transformers.logging.disable_progress_bar()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.disable(before)
