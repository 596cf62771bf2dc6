"""Renderings of a report: HTML, PDF, sheets."""
