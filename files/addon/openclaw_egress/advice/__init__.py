"""Advice for operators: rules that allow a denied destination, and the fewest rules that a class needs."""
