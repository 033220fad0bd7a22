"""Minimal deployments that an earlier version handled wrongly, one for each kind of failure, and the tests of each."""
