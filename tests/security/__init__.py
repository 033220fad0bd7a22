"""`make attack`: attempts to bypass network enforcement from inside the lab's containers of each class."""
