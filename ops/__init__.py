"""How it runs: settings, wiring, command line, embedded servers, telemetry, rebuild and benchmarks."""
