"""Exit codes, besides 0 for done."""

FINDINGS = 1  # at or above --fail-on
FAILED = 2  # usage, or the target could not be loaded or analysed
INTERRUPTED = 130  # by Ctrl-C, as shells count it
PIPE_CLOSED = 141  # the reader of stdout went away, as shells count it
