from __future__ import annotations

import io
import re
import sys
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tracesight.training import progress
from tracesight.training.progress import Display, peak_memory

NOW = datetime(2026, 1, 7, 9, 30).timestamp()  # a Wednesday, local time


class Clock:
    """Time as a test makes it pass: `time` reads the wall, `monotonic` does not."""

    def __init__(self) -> None:
        self.passed, self.wall = 1000.0, NOW

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds
        self.wall += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # they would make a terminal of a pipe
        monkeypatch.delenv(name, raising=False)
    return clock


def said(clock: Clock, seconds: float, *, total: int, steps: int = 3, held: int | None = None, start: int = 0) -> str:
    """The last line of a job whose steps take so long, without the fact of the recipe."""
    lines: list[str] = []
    with Display(lines.append, interval=0).job("step", total, start, None if held is None else lambda: held) as job:
        for _ in range(steps):
            clock.sleep(seconds)
            job.advance(0.1 * seconds)
    return lines[-1]


def test_a_line_tells_pace_wait_memory_and_end(clock):
    assert said(clock, 0.5, total=1523, held=1_310_000_000) == (
        "step 3/1523  2.00 steps/s  data wait 1%  1.3 GB  12:40 left, ends 09:42"
    )
    assert "  556 MB  " in said(clock, 0.5, total=100, held=556_000_000)
    assert said(clock, 75, total=3) == "step 3/3  75 s a step  data wait 1%  0:00 left"


def test_before_there_is_a_pace_no_end_is_named(clock):
    lines: list[str] = []
    with Display(lines.append, interval=0).job("step", 100, memory=lambda: 2_000_000_000) as job:
        clock.sleep(1)
        job.advance(lr=0.005)
    assert lines == ["step 1/100  lr 0.005  2.0 GB"]


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0, "0:00 left"), (14, ", ends 23:30"), (16, ", ends Thu 01:30"), (70, ", ends Sat 07:30"),
     (24 * 9, ", ends 2026-01-16 09:30"), (1e9, " left")],
)  # fmt: skip
def test_an_end_on_another_day_names_the_day(clock, hours, text):
    clock.wall -= 7200  # so that the third step ends at NOW
    assert said(clock, 2400, total=3 + int(hours * 1.5)).endswith(text)


def test_a_line_stays_short(clock):
    lines: list[str] = []
    with Display(lines.append, interval=0).job("step", 90_000, 12_340, lambda: 21_400_000_000) as job:
        for _ in range(50):
            clock.sleep(1.234)
            job.advance(0.5, lr=0.00123, loss=0.532)
    assert "data wait" in lines[-1] and "21.4 GB" in lines[-1] and "ends" in lines[-1]
    assert len(lines[-1]) <= 110


def test_a_wall_clock_that_jumps_changes_the_named_end_and_nothing_else(clock):
    def lines_of(jump: float) -> list[str]:
        lines: list[str] = []
        with Display(lines.append, interval=10).job("step", 1000) as job:
            for step in range(40):
                clock.sleep(3)
                if step == 20:
                    clock.wall += jump
                job.advance(1)
        return lines

    steady, back, ahead = lines_of(0), lines_of(-366 * 86400), lines_of(350 * 86400)
    assert len(steady) == len(back) == len(ahead) == 10
    strip = partial(re.sub, r", ends .*", "")
    assert [strip(line) for line in back] == [strip(line) for line in steady] == [strip(line) for line in ahead]
    assert all("ends 10:" in line for line in (*steady, *back, *ahead))


def test_a_wall_clock_out_of_its_senses_leaves_the_end_out(clock):
    clock.wall = 1e18
    line = said(clock, 1, total=100)
    assert line.endswith("1:37 left")


def test_lines_come_at_the_interval(clock):
    lines: list[str] = []
    with Display(lines.append, interval=15).job("step", 100) as job:
        for _ in range(100):
            clock.sleep(1)
            job.advance()
    assert [line.split()[1] for line in lines] == ["15/100", "30/100", "45/100", "60/100", "75/100", "90/100"]


def test_a_job_within_a_job_is_left_out_of_the_pace_and_counts_for_the_end(clock):
    lines: list[str] = []
    display = Display(lines.append, interval=0)
    with display.job("step", 100) as job:
        for step in range(1, 41):
            clock.sleep(1)
            if step % 10 == 0:
                with display.job("validate", 2) as inner:
                    clock.sleep(15)
                    inner.advance()
                    clock.sleep(15)
                    inner.advance()
            job.advance()
    mine = [line for line in lines if line.startswith("step")]
    assert all("1.00 steps/s" in line for line in mine[1:])
    assert "1:31 left" in mine[8]  # nothing but steps so far
    assert "6:00 left" in mine[9]  # 90 steps, and 9 times 30 seconds
    assert "4:00 left" in mine[39]


def test_a_quiet_display_says_nothing(clock, capsys):
    lines: list[str] = []
    for display in (Display(lines.append, interval=0, quiet=True), Display(interval=0, quiet=True)):
        display.say("a line")
        with display.job("step", 3) as job:
            for _ in range(3):
                clock.sleep(1)
                job.advance()
        assert job.done == 3
    assert lines == []
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_plain_lines(clock, capsys):
    display = Display(interval=0)
    display.say("[bold] is no markup here")
    with display.job("step", 3) as job:
        for _ in range(2):
            clock.sleep(1)
            job.advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "[bold] is no markup here",
        "step 1/3",
        "step 2/3  1.00 steps/s  0:01 left, ends 09:30",
    ]


def test_a_reader_that_has_gone_away_does_not_end_the_job(clock, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    display = Display(interval=0)
    monkeypatch.setattr(sys, "stderr", Gone())
    with display.job("step", 2) as job:
        for _ in range(2):
            job.advance()
    assert job.done == 2


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_terminal_gets_one_bar_a_job_and_nothing_is_cut(clock, monkeypatch, width):
    screen = io.StringIO()
    display = Display()
    terminal = Console(file=screen, force_terminal=True, width=width, height=20, soft_wrap=True, color_system=None)
    monkeypatch.setattr(display, "_console", terminal)
    monkeypatch.setattr(display, "_bar", True)
    with display.job("step", 90_000, 12_340, lambda: 1_300_000_000) as job:
        for _ in range(3):
            clock.sleep(1)
            job.advance(0.5, lr=0.005, loss=0.532)
        with display.job("validate", 2) as inner:
            inner.advance()
            assert display._bars is not None
            terminal.print(display._bars.get_renderable())
        display.say("step 3: [val] loss 1")
        job.advance()
    assert display._bars is None
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    words = " ".join(text.split())
    for fact in ("12343/90000", "validate", "1/2", "lr 0.005", "loss 0.532", "1.00", "1.3", "left,", "ends", "[val]"):
        assert fact in words
    assert all(len(line) <= width for line in re.split(r"[\r\n]", text))


def test_peak_memory_is_that_of_this_process():
    cpu = torch.device("cpu")
    if sys.platform == "win32":
        assert peak_memory(cpu) is None
        return
    held = peak_memory(cpu)
    assert held is not None
    assert 30e6 < held < 1e12  # bytes, in whatever unit the system counts
    status = Path("/proc/self/status")
    if status.exists():
        assert held >= 0.9 * 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])


def test_units_of_memory_by_system(monkeypatch):
    if sys.platform == "win32":
        pytest.skip("Windows has no getrusage")
    monkeypatch.setattr(progress.resource, "getrusage", lambda _: type("Usage", (), {"ru_maxrss": 2048}))
    monkeypatch.setattr(sys, "platform", "linux")
    assert peak_memory(torch.device("cpu")) == 2048 * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory(torch.device("cpu")) == 2048


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_peak_memory_on_a_gpu_is_what_tensors_held():
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats()
    held = torch.empty(10_000_000, device=device)
    most = peak_memory(device)
    del held
    assert most is not None
    assert most >= 40_000_000
    assert peak_memory(device) == most
