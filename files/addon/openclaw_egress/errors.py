"""The base class of errors that the operator can mend."""


class EgressError(Exception):
    """A mistake of the operator or a fault of the machine; the text says what is wrong, where, and what to do.

    Commands print the text without a traceback and exit with code 2.
    """
