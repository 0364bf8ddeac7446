"""Timings and long runs; `make bench NAME=…` starts one."""
