"""Three real brokers and real clients under faults drawn from a seed: `cargo xtask chaos`."""
