"""STEDI lake: a consent-aware data lake of step detection data."""
