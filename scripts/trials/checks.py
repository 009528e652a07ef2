"""Checks with a line for each, for the trials in front of real servers."""

import signal
import traceback

from trials.process import NotReady, Processes


class Mismatch(Exception):
    """A check found something other than it expected."""


class OutOfTime(BaseException):
    """The time limit of the program has passed. No Exception: client libraries wrap those."""


def expect(condition, message):
    """Raises Mismatch with `message` unless `condition` holds."""
    if not condition:
        raise Mismatch(message)


class Checks:
    """Runs checks, prints a line for each and counts them."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def run(self, name, check, *arguments):
        """Runs `check`, which returns a remark to print, or raises what went wrong.

        Returns whether it passed.
        """
        try:
            remark = check(*arguments)
        except (Mismatch, NotReady) as mismatch:
            self.fail(name, mismatch)
        except Exception as error:
            # Any error of the client library is a finding about the gateway, with its origin.
            origin = traceback.extract_tb(error.__traceback__)[1:2]
            line = f" (line {origin[0].lineno})" if origin else ""
            self.fail(name, f"{type(error).__name__}: {error}{line}")
        else:
            self.passed += 1
            print(f"ok   {name}" + (f": {remark}" if remark else ""), flush=True)
            return True
        return False

    def fail(self, name, reason):
        self.failed += 1
        print(f"FAIL {name}: {reason}", flush=True)

    def run_all(self, seconds_max, body):
        """Calls `body(processes)` within a time limit; returns the exit status."""

        def out_of_time(*_):
            raise OutOfTime

        signal.signal(signal.SIGALRM, out_of_time)
        with Processes() as processes:
            signal.alarm(seconds_max)
            try:
                body(processes)
            except NotReady as reason:
                self.fail("start", reason)
            except OutOfTime:
                self.fail("all of it", f"not done after {seconds_max} s")
            finally:
                signal.alarm(0)
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


def refusal(kind, ask):
    """The error of `kind` that `ask` must raise, as the client library makes it."""
    try:
        response = ask()
    except kind as error:
        return error
    raise Mismatch(f"expected an error, got {response}")


def print_log(gateway):
    """Prints the end of the gateway's log, where the cause of a failure may be."""
    lines = gateway.log_text().splitlines()
    print(f"---- end of {gateway.name}.log", *lines[-20:], "----", sep="\n", flush=True)
