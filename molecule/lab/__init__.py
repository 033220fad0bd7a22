"""The lab's Python helpers for the tests of the scenarios."""
