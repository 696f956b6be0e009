# `just` lists these; each is one line that can be run without just as well.

_default:
    @just --list

# Everything in one process, with the demo, on http://127.0.0.1:8080
run *ARGS:
    cargo run --release -- {{ARGS}}

# What continuous integration runs
check:
    .ci/run

# All tests, or some: `just test rust`, `just test browser -- --test-name-pattern=screen`
test *ARGS:
    tests/run {{ARGS}}

# Fuzz targets: `just fuzz 600`, `just fuzz 60 sdp`
fuzz *ARGS:
    tests/fuzz {{ARGS}}

# Format everything
fmt:
    cargo fmt --all

# Lints, as strict as CI
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# The documentation of all crates
doc:
    cargo doc --workspace --no-deps --open

# Join to first decoded frame in Chromium, and process start to serving
latency:
    bench/join-latency

# New pictures for the README
screenshots:
    SWITCHYARD_TEST_SCREENSHOTS=docs tests/run browser
