"""The proxy: mitmproxy's hooks, which call the pure parts of this package."""
