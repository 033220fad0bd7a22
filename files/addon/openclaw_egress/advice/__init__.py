"""Advice for operators: rules that would allow a denied destination, and rules for a class's recorded traffic."""
