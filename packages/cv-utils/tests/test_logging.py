"""Loggers: handlers, lines, ranks, and that nobody else's logging is touched."""

import contextlib
import io
import logging
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cv.utils.logging as cv_logging
from cv.utils import get_logger, print_log
from cv.utils.dist import get_dist_info, get_rank

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (\S+) - (\w+) - (.*)")


@pytest.fixture(autouse=True)
def fresh_loggers() -> Iterator[None]:
    """Forget the loggers that a test sets up, and close their files."""
    before = set(logging.Logger.manager.loggerDict)
    yield
    for name in set(logging.Logger.manager.loggerDict) - before:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        cv_logging.logger_initialized.pop(name, None)
        del logging.Logger.manager.loggerDict[name]


class Dist(types.ModuleType):
    """Stands for torch.distributed in ``sys.modules``."""

    def __init__(self, rank: int, world_size: int, initialized: bool = True, available: bool = True) -> None:
        super().__init__("torch.distributed")
        self.is_available = lambda: available
        self.is_initialized = lambda: initialized
        self.get_rank = lambda: rank
        self.get_world_size = lambda: world_size


def test_dist_info(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)
    assert get_dist_info() == (0, 1)
    assert "torch.distributed" not in sys.modules
    monkeypatch.setitem(sys.modules, "torch.distributed", Dist(2, 4))
    assert get_dist_info() == (2, 4)
    assert get_rank() == 2
    monkeypatch.setitem(sys.modules, "torch.distributed", Dist(2, 4, initialized=False))
    assert get_dist_info() == (0, 1)
    monkeypatch.setitem(sys.modules, "torch.distributed", Dist(2, 4, available=False))
    assert get_dist_info() == (0, 1)
    assert get_rank() == 0


def test_two_real_processes_write_one_line(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    code = """
import sys
import torch.distributed as dist
from cv.utils import get_logger
from cv.utils.dist import get_dist_info
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
assert get_dist_info() == (rank, 2)
get_logger("pkg", f"{folder}/run.log").info("from rank %d", rank)
dist.barrier()
dist.destroy_process_group()
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(rank)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "from rank 0" in errors[0]
    assert "from rank" not in errors[1]
    assert (tmp_path / "run.log").read_text().count("\n") == 1


def test_handlers_and_levels_on_rank_zero(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "run.log"
    logger = get_logger("pkg", file)
    stream_handler, file_handler = logger.handlers
    assert isinstance(stream_handler, logging.StreamHandler)
    assert isinstance(file_handler, logging.FileHandler)
    assert stream_handler.level == file_handler.level == logger.level == logging.INFO
    assert get_logger("pkg") is logger
    assert get_logger("pkg", log_level=logging.DEBUG).handlers == [stream_handler, file_handler]
    assert logger.level == logging.INFO


def test_the_line_on_the_console_and_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.log"
    logger = get_logger("pkg", file)
    logger.warning("größe %d", 3)
    logger.debug("not shown")
    console = capsys.readouterr().err
    assert console == file.read_text(encoding="utf-8")
    match = LINE.fullmatch(console.rstrip("\n"))
    assert match is not None
    assert match.groups() == ("pkg", "WARNING", "größe 3")


@pytest.mark.parametrize(("mode", "lines"), [("w", 1), ("a", 2)])
def test_file_mode(tmp_path: Path, mode: str, lines: int) -> None:
    file = tmp_path / "run.log"
    file.write_text("old\n")
    get_logger("pkg", file, file_mode=mode).info("new")
    assert len(file.read_text().splitlines()) == lines


def test_other_ranks_have_no_file_and_log_errors_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed", Dist(1, 2))
    logger = get_logger("pkg", tmp_path / "run.log")
    assert len(logger.handlers) == 1
    assert not (tmp_path / "run.log").exists()
    logger.warning("quiet")
    logger.error("loud")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_logger_below_a_known_one_adds_no_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("pkg")
    below = get_logger("pkg.core")
    assert below.handlers == []
    below.info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert len(get_logger("pkgs").handlers) == 1  # not below, although it begins with the name


def test_a_logger_above_a_known_one_prints_its_lines_once(capsys: pytest.CaptureFixture[str]) -> None:
    below = get_logger("pkg.core")
    get_logger("pkg")
    below.info("once")
    assert capsys.readouterr().err.count("once") == 1


@contextlib.contextmanager
def root_handler(handler: logging.Handler) -> Iterator[None]:
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


def test_no_line_twice_where_the_root_logger_prints_on_the_console(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logger = get_logger("pkg", tmp_path / "run.log")
    with root_handler(logging.StreamHandler(sys.stderr)):  # added later, as basicConfig would
        logger.info("once")
        logger.getChild("core").info("once too")
    logger.info("alone")
    assert capsys.readouterr().err.count("once") == 2
    assert (tmp_path / "run.log").read_text().count("\n") == 3


def test_a_quieter_root_handler_does_not_swallow_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.ERROR)
    with root_handler(handler):
        get_logger("pkg").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_handlers_of_the_root_logger_get_every_record_and_stay_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = io.StringIO()
    handler = logging.StreamHandler(elsewhere)
    with root_handler(handler):
        before = [(h, h.level, list(h.filters)) for h in logging.root.handlers], logging.root.level
        get_logger("pkg").info("message")
        after = [(h, h.level, list(h.filters)) for h in logging.root.handlers], logging.root.level
    assert before == after
    assert elsewhere.getvalue() == "message\n"
    assert capsys.readouterr().err.count("message") == 1


def test_caplog_sees_the_records(caplog: pytest.LogCaptureFixture) -> None:
    print_log("welcome", "pkg")
    assert caplog.record_tuples[-1] == ("pkg", logging.INFO, "welcome")


def test_a_replaced_stderr_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    logger = get_logger("pkg")
    logger.info("one")
    first_text = first.getvalue()
    first.close()
    monkeypatch.setattr(sys, "stderr", second)
    logger.info("two")
    assert "one" in first_text
    assert "two" in second.getvalue()


def test_set_stream_is_honoured(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    handler = get_logger("pkg").handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    get_logger("pkg").info("there")
    assert "there" in stream.getvalue()
    assert capsys.readouterr().err == ""


# --- print_log


def test_print_log_without_a_logger(capsys: pytest.CaptureFixture[str]) -> None:
    print_log("100% plain")
    assert capsys.readouterr().out == "100% plain\n"


def test_print_log_silent(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    print_log("nothing", "silent")
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []


def test_print_log_with_a_logger_and_level(caplog: pytest.LogCaptureFixture) -> None:
    print_log("100% error", get_logger("pkg"), level=logging.ERROR)
    assert caplog.record_tuples == [("pkg", logging.ERROR, "100% error")]


@pytest.mark.parametrize("logger", [0, 1.5, ["pkg"]])
def test_print_log_with_something_else(logger: Any) -> None:
    with pytest.raises(TypeError, match="logger should be either"):
        print_log("welcome", logger)
