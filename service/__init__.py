"""The service: HTTP, command line and portal; the only room that knows them."""
