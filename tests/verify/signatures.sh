#!/usr/bin/env bash
# Receivers written with the official libraries accept what we sign, and the ingest what they sign; `make verify-signatures`
# installs the libraries.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/engine.sh"
installed=$root/target/verify/signatures

start_engine
start_listener "$installed/venv/bin/python" "$root/tests/verify/signatures/receiver.py"
python=$LISTENING
# Node looks for the libraries beside the program.
start_listener node "$installed/receiver.mjs"
run python3 "$root/tests/verify/signatures/check.py" "$BASE_URL" "$ADMIN_KEY" "python=$python" "node=$LISTENING"
