#!/usr/bin/env bash
# Plenary beside redis-server, etcd, hiqlite and d-engine under the same load, on this machine; writes figures.md and plots into this folder.
#
#     benches/compare/run.sh                  # about fifteen minutes, and what building takes; --help lists the options
#     benches/compare/run.sh --quick          # three minutes: to see that it works
#
# Needs redis-server, redis-benchmark and etcd (Debian: redis-server, etcd-server); with protoc (Debian: protobuf-compiler) d-engine as well. All that is
# started listens on free ports of loopback, has its data in a temporary folder (TMPDIR: on the disk that is meant, not in memory), and ends by itself.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in redis-server redis-benchmark etcd; do
  command -v "$tool" > /dev/null || { echo "missing: $tool" >&2; exit 1; }
done
features=()
if command -v protoc > /dev/null; then
  features=(--features d-engine)
else
  echo "without d-engine: protoc is missing" >&2
fi

cargo build --release --locked --bin plenary
cargo build --release --locked --manifest-path benches/peers/Cargo.toml --bin compare "${features[@]}"
PLENARY_PROGRAM="${CARGO_TARGET_DIR:-target}/release/plenary" exec "${CARGO_TARGET_DIR:-benches/peers/target}/release/compare" "$@"
