"""Compiled loops: arrays and floats in, arrays out."""
