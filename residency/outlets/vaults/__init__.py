"""Bodies of the `Vault` port: `folder`, files on a local disk."""
