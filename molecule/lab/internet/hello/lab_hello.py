"""What came through the wall by `pip install` or `git clone`."""

GREETING = "hello from the lab"
