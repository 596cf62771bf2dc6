"""Bodies of the `Generator` port; the extractive answerer leaves no process, see `service/grounding.py`."""
