"""Sample package for `pip install` and `git clone` through the proxy."""

GREETING = "hello from the lab"
