"""The base class of errors that an operator can fix."""


class EgressError(Exception):
    """An operator's mistake or a fault of the machine. The text says what is wrong, where, and what to do.

    Commands print the text without a traceback and exit with code 2.
    """
