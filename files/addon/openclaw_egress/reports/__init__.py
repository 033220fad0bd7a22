"""What the ``egress`` command and its web page both show, computed from the spool."""
