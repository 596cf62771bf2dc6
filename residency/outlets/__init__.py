"""The corridor: every way by which data can leave the process; only `service/outfitting.py` opens it."""
