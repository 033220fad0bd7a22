"""The proxy: mitmproxy add-ons and protocol layers, which call the pure functions of the other packages."""
