"""The API: one file per part of it; all of it is thin."""
