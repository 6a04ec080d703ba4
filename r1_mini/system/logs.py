"""log.txt, the story of a run, and where warnings of libraries go: into it, so that the screen shows what matters."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1_mini.system import distributed as processes
from r1_mini.system.files import if_writable

_OURS = logging.getLogger("r1_mini")


@contextmanager
def quiet(path: Path) -> Iterator[None]:
    """Within the block, what our modules log goes to the file, and so do warnings of libraries, once each.

    They go nowhere else. Of several processes only the main one tells the story.
    """
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
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    seen: set[str] = set()

    def first_time(record: logging.LogRecord) -> bool:
        """Whether the record is ours, or has not been there before; a library's gets its name and level."""
        if record.name.partition(".")[0] == _OURS.name:
            return True
        record.msg, record.args = f"{record.levelname} {record.name}: {record.getMessage().strip()}", ()
        is_new = record.msg not in seen
        seen.add(record.msg)
        return is_new

    handler.addFilter(first_time)
    before, logging.root.handlers = logging.root.handlers, [handler]
    _OURS.setLevel(logging.INFO if processes.is_main() else logging.WARNING)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # on a full disk the run says so once, not for each line of the log
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # which a user can do nothing about
            yield
    except BaseException as error:
        _OURS.info("ended early: %s", str(error) or type(error).__name__)
        raise
    finally:
        logging.raiseExceptions = True
        logging.captureWarnings(False)
        logging.root.handlers = before
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
