"""Fault rig: injects faults into a running stack, and checks afterwards that every promise was kept."""
