import signal
import threading
import time

import pytest

from streamreg.interrupts import finished


def test_an_interrupt_is_raised_once_the_work_has_ended():
    ended = []

    def work():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.2)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        finished(work)
    assert ended == [True]


def test_what_the_work_returns_or_raises_comes_back():
    assert finished(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        finished(divmod, 7, 0)
