"""The bodies of the shard port: embedded (`edge`, with its child) and at a Qdrant server (`remote`)."""
