"""Lease alarm: ends a process that can no longer renew its leases, or whose attempt ignores that it must stop.

Code that holds the interpreter lock, such as a regular expression or a parser in C, stops every thread of its process, so no
thread can be the watchdog. The kernel is: it kills the process when the alarm is not set again in time. The jobs of a process
that died return to their queues, and its supervisor replaces it.
"""

import signal


class LeaseAlarm:
    """The alarm of this process, after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def install(self) -> None:
        """Set the alarm for the first time. Only the main thread may call this."""
        # A handler in Python would wait for the interpreter lock, like everything else. The default action kills.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.postpone()

    def postpone(self) -> None:
        """Set the alarm again, counting from now. Any thread may call this."""
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def cancel(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
