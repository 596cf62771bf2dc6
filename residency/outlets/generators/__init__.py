"""Bodies of the `Generator` port: `openai_like`; the extractive answerer leaves no process, see `service/grounding.py`."""
