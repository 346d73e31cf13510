"""Descriptions of heliosd for programs, made from the types that the code itself uses."""
