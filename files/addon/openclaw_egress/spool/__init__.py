"""The spool: the durable queue between the proxy and the destination."""
