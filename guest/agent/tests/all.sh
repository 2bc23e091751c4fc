#!/bin/sh
# Runs every test program of a build directory. The last line sums up: "N passed, N failed, N skipped".
build=$1
{
    for program in frame_test stream_test blocks_test session_test flow_test connection_test connection_flow_test survey_test; do
        "$build/$program" || echo "$program ended with code $?"
    done
    for program in agent_test init_test; do
        "$build/$program" "$build/mayfly-agent-host" || echo "$program ended with code $?"
    done
} 2>&1 | awk '
    { print }
    /^[a-z_]+: [0-9]+ passed, / { passed += $2; failed += $4; skipped += $6 }
    / ended with code / { ended++ }
    END {
        if (ended && !failed) failed = ended # it crashed before it could count
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit failed > 0
    }'
