#!/usr/bin/env bash
# stopped_rank_test.sh [--nccl] [--kill] MPIEXEC... PROGRAM: a job with a stopped rank ends within its deadline +
# 3 s, names the rank and the operation, and its exit code says that it may be started again. With --kill the rank
# is killed, and MPIEXEC leaves the others alone (and has an exit code of its own).
set -u
deadline_ms=1500
arguments=($deadline_ms)
exit_code=75
while [[ "$1" = --* ]]; do
  arguments+=("${1#--}")
  [ "$1" = --kill ] && exit_code=
  shift
done
TMPDIR=$(mktemp -d)  # of the ranks too, which leave something there
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
log=$TMPDIR/log

"$@" "${arguments[@]}" > "$log" 2>&1 &
job=$!
until grep -q stopping "$log" || ! kill -0 $job 2> /dev/null; do sleep 0.01; done
stopped_at=$(date +%s%3N)
wait $job
code=$?
waited_ms=$(($(date +%s%3N) - stopped_at))
cat "$log"
echo "exit code $code after $waited_ms ms"

[ $code -eq "${exit_code:-$code}" ] &&
  [ $waited_ms -le $((deadline_ms + 3000)) ] &&
  grep -q "rank 0: all_reduce_sum \"step\" #5: waited $deadline_ms ms for rank 1" "$log"
