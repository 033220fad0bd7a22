"""What would allow a denied destination, and the least rules that a class needs."""
