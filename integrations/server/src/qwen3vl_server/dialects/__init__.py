"""The endpoints of other servers, whose clients work unchanged."""
