"""Bodies of the `Generator` port: `extractive`, in process, and `openai_like`, an endpoint in a permitted Zone."""
