"""OpenAI's shapes for clients that people already use."""
