"""The lab's Python tools, which the tests of the scenarios use."""
