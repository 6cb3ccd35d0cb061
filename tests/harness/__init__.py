"""What the suites on real broker processes share: starting and hurting brokers, raw protocol, histories, log files."""
