"""Threads: our own, and those of an OpenMP runtime."""
