"""Programs that stand where, in production, somebody else's service is: tools of the tests, no part of the product."""
