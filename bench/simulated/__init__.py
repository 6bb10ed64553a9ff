"""The parts of bench/simulate_routing.py."""
