"""Tools of the lab, for the scenarios' tests."""
