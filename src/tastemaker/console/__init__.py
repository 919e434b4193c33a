"""The web page: a client of the HTTP API like any other. Floor 4, answering wing."""
