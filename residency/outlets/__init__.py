"""The corridor: every way by which data can leave the process, and nothing else; `service/bootstrap.py` alone opens it."""
