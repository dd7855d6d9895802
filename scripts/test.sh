#!/bin/sh
# Run the tests. Usage: scripts/test.sh PYTHON [PYTEST ARGUMENT...]
#
# Without arguments all of them: first, four at a time, nearly all, then those marked `alone`, which compare times, one after
# the other on a quiet machine. With arguments one run of pytest that has them.
set -u
python=$1
shift
if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi
limit=${TEST_TIMEOUT:+--timeout=$TEST_TIMEOUT}
failed=0
# shellcheck disable=SC2086  # no limit is no argument
"$python" -m pytest --numprocesses=4 --dist=loadfile --no-loadscope-reorder $limit -m "not alone" tests || failed=$?
# shellcheck disable=SC2086
"$python" -m pytest $limit -m alone tests/system || failed=$?
exit "$failed"
