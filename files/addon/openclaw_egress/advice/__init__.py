"""Advice for operators: rules that would allow a denied destination, or a class's recorded traffic."""
