from __future__ import annotations

import os
import signal
import threading

import pytest

from tracesight.errors import Interrupted
from tracesight.training.signals import listening

pytestmark = pytest.mark.skipif(os.name == "nt", reason="os.kill ends a process on Windows")


def test_asking_raises_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught, listening():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")
    assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_must_be_whole_is_finished_first():
    done = []
    with pytest.raises(Interrupted), listening() as stop:
        with stop.whole():
            with stop.whole():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]


def test_where_ranks_must_agree_asking_is_only_noted():
    with listening(at_once=False) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with stop.whole():
            pass
        assert stop.asked == signal.SIGTERM


def test_a_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), listening() as stop, stop.whole():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_error_in_the_block_is_not_hidden():
    with pytest.raises(ValueError, match="mine"), listening() as stop, stop.whole():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("mine")


def test_other_threads_are_left_alone():
    seen = []

    def work():
        with listening() as stop:
            seen.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.asked is None
    finally:
        signal.signal(signal.SIGHUP, before)
