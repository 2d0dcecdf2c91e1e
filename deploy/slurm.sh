#!/bin/bash
#SBATCH --job-name=fingerprint
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
#
# One command of fingerprint on several nodes: a Dask scheduler here, and on every node
# `dask cuda worker` for what needs a GPU and `dask worker` on the cores for the rest. All find the
# scheduler through a file in a folder of this job.
#
#   sbatch deploy/slurm.sh audit REAL GENERATED OUT --plain --settings deploy/settings/cluster.toml
#
# The environment in which `fingerprint` is installed must be active, and its folders and the job
# folder must have the same paths on every node. A job that ends with 4 (time, preemption, a node
# that died) goes back into the queue and goes on where it was; 10, copies found, ends the job as 0
# and is the last line of its log. What a site may set:
#
#   JOBS        folder for job folders, shared by the nodes      ~/.fingerprint-jobs
#   SCRATCH     folder for scratch on each node                  /tmp
#   WORKER      what starts the GPU workers of a node            dask cuda worker
#   CORES       CPU workers of a node                            48
#   MEMORY_GIB  of one worker; `memory_gib` of the settings      32
#   INTERFACE   network interface between the nodes, as ib0      the one Dask chooses
#   RESTARTS    how often a job may go back into the queue       20
set -euo pipefail
umask 077

[ $# -gt 0 ] || { echo "slurm.sh: a command is missing, as: audit REAL GENERATED OUT" >&2; exit 2; }
: "${SLURM_JOB_ID:?submit this script with sbatch}"
export SCRATCH=${SCRATCH:-/tmp} WORKER=${WORKER:-dask cuda worker} CORES=${CORES:-48}
export MEMORY_GIB=${MEMORY_GIB:-32}
export JOB=${JOBS:-$HOME/.fingerprint-jobs}/$SLURM_JOB_ID
interface=${INTERFACE:+--interface=$INTERFACE}

# A scheduler has no password: who may connect is decided by a certificate that only this job has.
# Scheduler, workers and command show the same one, and accept no other.
certify() {
  rm -rf "$JOB"
  mkdir -p "$JOB"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 60 \
    -subj "/CN=fingerprint-$SLURM_JOB_ID" -keyout "$JOB/key.pem" -out "$JOB/cert.pem" 2>"$JOB/openssl.log" ||
    { cat "$JOB/openssl.log" >&2; exit 1; }
  export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
  export DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$JOB/cert.pem
  for who in SCHEDULER WORKER CLIENT; do
    export "DASK_DISTRIBUTED__COMM__TLS__${who}__CERT=$JOB/cert.pem"
    export "DASK_DISTRIBUTED__COMM__TLS__${who}__KEY=$JOB/key.pem"
  done
}

# As flows/workers.py has it for its own workers: one thread for every library, memory that is kept
# for the next array, no pixels on the disk, no pause that nothing would end, and a shard that kills
# two workers is a suspect.
quieten() {
  export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
  export ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 ZARR_THREADING__MAX_WORKERS=1 ZARR_ASYNC__CONCURRENCY=1
  export MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=33554432
  export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False
  export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE=1.0
  export DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=1
  export DASK_LOGGING__DISTRIBUTED=critical
}

# Runs on every node, by srun. The dashboards listen on loopback alone; what listens beyond it wants
# the certificate.
# shellcheck disable=SC2329  # called through srun
hand() {
  umask 077
  own=$(mktemp -d "$SCRATCH/fingerprint-$SLURM_JOB_ID.XXXXXX")
  export TMPDIR=$own
  trap 'rm -rf "$own"' EXIT
  # shellcheck disable=SC2046  # one word for every process
  trap 'kill $(jobs -p) 2>/dev/null || true' TERM INT
  set -- "$@" --scheduler-file "$JOB/scheduler.json" --protocol tls --nthreads 1 \
    --memory-limit "${MEMORY_GIB}GiB" --dashboard-address 127.0.0.1:0 --local-directory "$own" \
    --death-timeout 120
  $WORKER "$@" --resources GPU=1 &
  CUDA_VISIBLE_DEVICES='' dask worker "$@" --nworkers "$CORES" --resources CPU=1 &
  wait
  wait # the first ends at once when a signal arrives
}
export -f hand

clean() {
  trap - EXIT
  # shellcheck disable=SC2046  # one word for every process
  kill $(jobs -p) 2>/dev/null || true
  wait
  rm -rf "$JOB"
}

certify
quieten
trap clean EXIT
# shellcheck disable=SC2086  # no word where no interface is named
dask scheduler --protocol tls $interface --port 0 --dashboard-address 127.0.0.1:0 \
  --scheduler-file "$JOB/scheduler.json" &
for _ in $(seq 600); do [ -s "$JOB/scheduler.json" ] && break; sleep 0.2; done
[ -s "$JOB/scheduler.json" ] || { echo "slurm.sh: the scheduler did not start" >&2; exit 1; }
# shellcheck disable=SC2086,SC2016
srun --ntasks-per-node=1 --kill-on-bad-exit=0 bash -c 'hand "$@"' hand $interface &

fingerprint "$@" --cluster "$JOB/scheduler.json" &
command=$!
trap 'kill -TERM $command 2>/dev/null || true' TERM INT
code=0
wait $command || code=$?
while kill -0 $command 2>/dev/null; do code=0; wait $command || code=$?; done
trap - TERM INT
clean
echo "fingerprint ended with $code"

if [ $code -eq 4 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${RESTARTS:-20}" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
[ $code -ne 10 ] || code=0
exit $code
