"""Bodies of the `KeyProvider` port: `file`, KEKs in a folder under the root key of their Site."""
