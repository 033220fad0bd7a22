"""The proxy: mitmproxy's hooks around the pure parts of this package."""
