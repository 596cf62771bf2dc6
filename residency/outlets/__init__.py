"""The corridor: every way by which data can leave the process; `service/bootstrap.py` alone opens it."""
