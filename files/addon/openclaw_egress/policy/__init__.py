"""The policy: which class may reach what."""
