"""Advice for operators: rules that would allow a denied destination, and the smallest set of rules for a class."""
