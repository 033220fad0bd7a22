"""`make attack`: tries, from inside the lab's containers of each class, to get past the wall."""
