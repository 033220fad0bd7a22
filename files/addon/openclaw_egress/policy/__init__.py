"""The policy: the destinations that each class may reach."""
