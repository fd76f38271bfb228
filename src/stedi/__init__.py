"""STEDI lake: a consent-aware data lake of step detection data."""

__version__ = "0.1.0"
