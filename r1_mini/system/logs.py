"""Where warnings and logs of libraries go: to the run's log file, so that the screen shows what a user can act on."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1_mini.system.files import if_writable


@contextmanager
def quiet(path: Path) -> Iterator[None]:
    """Within the block, Python's warnings and the logs of every library go to the file and nowhere else."""
    import datasets
    import transformers

    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):  # libraries add handlers that write to stderr
            logger.handlers.clear()
            logger.propagate = True
    handler: logging.Handler = logging.NullHandler()
    with if_writable():
        handler = logging.FileHandler(path, encoding="utf-8")
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(handlers=[handler], level=logging.INFO, format=form, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # on a full disk the run says so once, not for each line of the log
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # which a user can do nothing about
            yield
    finally:
        logging.raiseExceptions = True
        logging.captureWarnings(False)
        logging.root.removeHandler(handler)
        handler.close()


@contextmanager
def silent() -> Iterator[None]:
    """Within the block, drop warnings and library logs below an error; for commands that have no run folder."""
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
