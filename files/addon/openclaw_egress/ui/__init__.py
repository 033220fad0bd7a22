"""The read-only web page over the spool; see `server`."""
