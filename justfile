# The project's tasks. Anything longer than a line lives in xtask.

# List the tasks.
default:
    @just --list

# Check format and lints; changes no file.
check:
    cargo xtask check

# Run every test, or only the suites named.
test *suites:
    cargo xtask test {{suites}}

# Run whole clusters on a simulated clock, network and disk.
sim *arguments:
    cargo xtask sim {{arguments}}

# Run real brokers and real clients under faults, and check what the clients saw.
chaos *arguments:
    cargo xtask chaos {{arguments}}

# Fuzz one target, or all of them.
fuzz *arguments:
    cargo xtask fuzz {{arguments}}

# Run the README's cluster and its quick start once.
smoke:
    cargo xtask smoke

# Build the container image without a registry.
image:
    cargo xtask image

# Run the compose files in containers. Needs a Docker engine.
containers:
    cargo xtask containers

# Measure what a log costs, beside what the machine can do.
bench *arguments:
    cargo bench -p vltava-storage {{arguments}}

# Steady load on three brokers for half an hour: nothing may grow.
soak *arguments:
    cargo xtask soak {{arguments}}

# Install a Docker engine (Debian), run it for as long as the compose files are tested, and end it.
containers-here:
    deploy/image/with-docker cargo xtask containers

# Build kubectl, and have it kustomize and dry-run the Kubernetes manifests.
kubectl:
    cargo xtask kubectl

# Measure start, memory and size beside Apache Kafka's, on this machine in the same run.
beside-kafka *arguments:
    cargo xtask beside-kafka {{arguments}}

# Run three brokers on this machine until Ctrl-C.
cluster *arguments:
    cargo run --release -- cluster --brokers 3 {{arguments}}

# Format the code.
format:
    cargo fmt --all
