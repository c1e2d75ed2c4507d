#!/bin/bash
# A search on a Slurm cluster: Ray's head and the driver on the first node, Ray's workers on all of them.
#
#   sbatch --nodes=8 --cpus-per-task=32 deploy/slurm.sh images --data /shared/pictures --name pictures --trials 2000
#
# What follows the script are arguments of `archsmith search`; --name has to be among them, since that is what the search
# is gone on with: by Slurm after a node was lost or the job was preempted, by this script a little before the time limit
# and where the driver died (three times), by you with the same command. The guide: docs/guides/running-elsewhere.md.
#
# ARCHSMITH_STORE says where runs are kept: a PostgreSQL server, or an SQLite file that no other machine opens meanwhile.
# ARCHSMITH_ENV is a file that is sourced first, such as .venv/bin/activate (default: that beside this folder, if any).
#SBATCH --job-name=archsmith
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
#SBATCH --output=archsmith-%j.log
set -euo pipefail

case " $* " in
*" --name "* | *" --name="*) ;;
*)
    echo "usage: sbatch deploy/slurm.sh RECIPE --name NAME ...   (the name is what the search is gone on with)" >&2
    exit 2
    ;;
esac

environment=${ARCHSMITH_ENV:-${SLURM_SUBMIT_DIR:-.}/.venv/bin/activate}
if [ -f "$environment" ]; then
    # shellcheck disable=SC1090
    source "$environment"
fi
if ! command -v ray >/dev/null || ! command -v archsmith >/dev/null; then
    echo "archsmith and Ray are not on the PATH of $(hostname): name a file to source in ARCHSMITH_ENV" >&2
    exit 2
fi

# --- what Ray gets ----------------------------------------------------------------------------------------------------

# The address by which the other nodes see this one; some machines resolve their own name to the loopback.
address=$(getent ahostsv4 "$(hostname)" | awk 'NR == 1 { print $1 }')
case "$address" in
"" | 127.*) address=$(hostname -I | awk '{ print $1 }') ;;
esac
# Jobs that share a node each have a port of their own, below those that Linux hands out.
port=$((20000 + SLURM_JOB_ID % 10000))
cpus=${SLURM_CPUS_PER_TASK:-$(nproc)}
nodes=${SLURM_JOB_NUM_NODES:-1}

# Whoever reaches Ray's ports can run code as you. With a token only this job can; Ray gives it to nobody.
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
RAY_USAGE_STATS_ENABLED=0
RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # when a node is told to end, its children begin again elsewhere at once
RAY_process_group_cleanup_enabled=1 # what a child had started ends with it
RAY_ADDRESS=$address:$port
RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID # short: Ray's sockets are in it, and their paths have at most 107 characters
export RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
export RAY_process_group_cleanup_enabled RAY_ADDRESS RAY_TMPDIR

# The object store holds the data set once on each node, and what children report.
start=(ray start --block --disable-usage-stats --temp-dir="$RAY_TMPDIR"
    --object-store-memory="${RAY_OBJECT_STORE_BYTES:-2000000000}")
# Ray on some nodes. A step outlives its neighbours' nodes, and leaves nothing behind on its own.
on() {
    # shellcheck disable=SC2016
    srun --ntasks-per-node=1 --cpus-per-task="$cpus" --overlap --no-kill --kill-on-bad-exit=0 \
        --open-mode=append --output="archsmith-$SLURM_JOB_ID-ray.log" "${@:1:3}" \
        bash -c 'trap "told=yes" TERM; "$@" || failed=$?; rm -rf "$RAY_TMPDIR"; [ -n "${told:-}" ] || exit "${failed:-0}"' ray "${@:4}" &
    steps+=($!)
}

# --- the end, however it comes ----------------------------------------------------------------------------------------

steps=()
driver=
told=     # to end: by whom
signals=0 # that interrupted this script

# shellcheck disable=SC2317
finish() {
    trap '' TERM INT USR1
    scancel --signal=TERM "$SLURM_JOB_ID" 2>/dev/null || true # its steps, and not this script
    for ((waited = 0; waited < 100; waited++)); do
        [ -n "$(jobs -pr)" ] || break
        sleep 0.2
    done
    for step in "${steps[@]}"; do
        kill -TERM "$step" 2>/dev/null || true
    done
    wait || true
    rm -rf "$RAY_TMPDIR"
}
trap finish EXIT
# scancel --batch, or preemption, after which Slurm puts the job into the queue again by itself.
trap 'told=slurm signals=$((signals + 1)); [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null || true' TERM INT
# The time limit is near: stop in good order, and queue again.
trap 'told=time signals=$((signals + 1)); [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null || true' USR1

# --- Ray --------------------------------------------------------------------------------------------------------------

# The driver works in bursts beside the children of this node. On a few large nodes leave it a core.
head_cpus=$((cpus > 4 ? cpus - 1 : cpus))
on --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \
    "${start[@]}" --head --node-ip-address="$address" --port="$port" --num-cpus="$head_cpus" --include-dashboard=false
for ((waited = 0; ; waited += 2)); do
    ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1 && break
    if ((waited > 120)) || ! kill -0 "${steps[0]}" 2>/dev/null; then
        echo "Ray's head did not come up on $(hostname) at $RAY_ADDRESS; archsmith-$SLURM_JOB_ID-ray.log may say why" >&2
        exit 1
    fi
    sleep 2
done
if ((nodes > 1)); then
    on --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$SLURMD_NODENAME" \
        "${start[@]}" --address="$RAY_ADDRESS" --num-cpus="$cpus"
fi

# --- the search -------------------------------------------------------------------------------------------------------

echo "$(date -Is) archsmith search $* on $nodes nodes of $cpus cores (start ${SLURM_RESTART_COUNT:-0} of job $SLURM_JOB_ID)"
archsmith search "$@" --resume --executor ray --address "$RAY_ADDRESS" &
driver=$!
# A signal ends the wait, and not the driver, which first closes its run.
while :; do
    before=$signals status=0
    wait "$driver" || status=$?
    ((signals > before)) || break
done
echo "$(date -Is) the search ended with status $status"
finish
trap - EXIT
case "$told:$status" in
*:0 | slurm:* | :2) exit "$status" ;; # done; told to end; wrong use, which would be wrong again
time:*) ;;
*) ((${SLURM_RESTART_COUNT:-0} < 3)) || exit "$status" ;;
esac
scontrol requeue "$SLURM_JOB_ID"
exit "$status"
