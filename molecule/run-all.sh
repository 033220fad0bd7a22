#!/usr/bin/env bash
# The playbooks' own tests, and every scenario on one lab. Ends with `N passed, N failed`; KEEP=1 leaves the lab standing.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
mkdir -p build
# Wide, so that a line of a test is one line of Molecule's.
export LAB_KEEP=1 PY_COLORS=0 NO_COLOR=1 ANSIBLE_NOCOLOR=1 COLUMNS=240
passed=0 broken=()
molecule/lab/lab down
# They need no lab, and making one is mostly waiting; beside it they have more time.
began=$SECONDS log=build/playbooks.log
python -m pytest --timeout 400 --numprocesses auto --dist worksteal tests/playbooks molecule/lab >"$log" 2>&1 </dev/null &
playbooks=$!
# Here, and not by a scenario's `create` alone, so that what takes minutes is seen while it does.
molecule/lab/lab up </dev/null || { kill "$playbooks" 2>/dev/null; echo "0 passed, 1 failed"; exit 1; }
result=passed
wait "$playbooks" || result=failed
tests=$(grep -oE '[0-9]+ passed' "$log" | tail -n 1 | grep -oE '[0-9]+' || echo 0)
if [[ $result == failed ]]; then
  broken+=("$log")
  tail -n 60 "$log"
fi
passed=$((passed + tests))
echo "── playbooks: $result, $tests tests, $((SECONDS - began)) s beside the lab ($log) ──"
# What leaves the hosts as they were goes first; each of the last two goes on from what the one before it deployed.
for scenario in bare_check rollback default classes network; do
  began=$SECONDS log=build/molecule-$scenario.log
  echo "── molecule test --scenario-name $scenario ──"
  result=passed
  molecule test --scenario-name "$scenario" </dev/null 2>&1 | tee "$log" |
    sed -nu 's/^INFO *\[\([a-z_]* > [a-z_]*\)\] Executing$/\1 …/p' || result=failed
  tests=$(grep -oE '[0-9]+ passed' "$log" | awk '{n += $1} END {print n + 0}')
  # A scenario that asked nothing is not green.
  ((tests > 0)) || result=failed
  if [[ $result == failed ]]; then
    broken+=("$log")
    tail -n 60 "$log"
  fi
  passed=$((passed + tests))
  echo "── $scenario: $result, $tests tests, $((SECONDS - began)) s ($log) ──"
done
[[ ${KEEP:-} == 1 ]] || molecule/lab/lab down
# Once more, and briefly: of a run of half an hour, often only the end is at hand.
for log in "${broken[@]}"; do
  echo "── why $log failed:"
  grep -oE '((FAILED|ERROR) (tests|molecule)/|fatal: |[^"]*NOT MET ).*' "$log" | cut -c -240 | tail -n 8
done
echo "$passed passed, ${#broken[@]} failed"
((${#broken[@]} == 0))
