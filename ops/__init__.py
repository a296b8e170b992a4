"""Settings, wiring, roles, command line, embedded servers, upkeep and benchmarks."""
