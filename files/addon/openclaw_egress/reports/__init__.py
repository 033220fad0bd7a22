"""Reports from the spool that both the ``egress`` command and its web page show."""
