#!/usr/bin/env python3
"""How long appends wait when the primary's process is killed.

Runs a cluster of three nodes in a temporary folder. Each trial appends a small record every millisecond, kills the process
that leads the partition with SIGKILL, and tells how long the record that waited longest for its acknowledgement did: that is
the time from the kill to the first acknowledgement by the next primary, give or take a millisecond.

    scripts/failover.py [--varve target/release/varve] [--trials 10] [--base-port 7201]
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOPIC = "failover/records"
WARM_UP_SECONDS = 0.5
AFTER_KILL_SECONDS = 1.5
HEALTHY_SECONDS_MAX = 60


def run(varve, folder, *arguments):
    """The JSON that a command prints."""
    done = subprocess.run([varve, "--output", "json", *arguments], cwd=folder, capture_output=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit(f"varve {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return json.loads(done.stdout)


def wait_until_healthy(varve, folder):
    """The status of the cluster as soon as all of it is up."""
    deadline = time.monotonic() + HEALTHY_SECONDS_MAX
    while time.monotonic() < deadline:
        status = run(varve, folder, "cluster", "status")
        if status["health"] == "healthy":
            return status
        time.sleep(0.1)
    sys.exit(f"the cluster is not healthy after {HEALTHY_SECONDS_MAX} s: {json.dumps(status)}")


def append_for(producer, seconds):
    """Hands a line to the producer every millisecond."""
    start = time.monotonic()
    number = 0
    while time.monotonic() - start < seconds:
        producer.stdin.write(b"a small record\n")
        producer.stdin.flush()
        number += 1
        time.sleep(max(0, start + number / 1000 - time.monotonic()))
    return number


def trial(varve, folder):
    """Kills the primary once; the longest wait for an acknowledgement, in milliseconds."""
    status = wait_until_healthy(varve, folder)
    group = next(group for group in status["groups"] if group["name"] == f"{TOPIC}/0")
    command = [varve, "--output", "json", "produce", TOPIC]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer:
        sent = append_for(producer, WARM_UP_SECONDS)
        os.kill(group["primary_pid"], signal.SIGKILL)
        sent += append_for(producer, AFTER_KILL_SECONDS)
        sums = json.loads(producer.communicate()[0])
    if sums["records"] != sent:
        sys.exit(f"{sent} records were sent and {sums['records']} acknowledged")
    return sums["ack_ms_max"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--varve", default="target/release/varve")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--base-port", type=int, default=7201)
    arguments = parser.parse_args()
    varve = str(Path(arguments.varve).resolve())
    with tempfile.TemporaryDirectory() as folder:
        command = [varve, "--output", "json", "dev", "--restart", "--base-port", str(arguments.base_port)]
        dev = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
        try:
            if not dev.stdout.readline():
                sys.exit("varve dev did not start")
            run(varve, folder, "stream", "create", TOPIC.split("/")[0])
            run(varve, folder, "topic", "create", TOPIC)
            waits = []
            for number in range(1, arguments.trials + 1):
                waits.append(trial(varve, folder))
                print(f"trial {number}: {waits[-1]:.0f} ms", flush=True)
            print(f"median {statistics.median(waits):.0f} ms, from {min(waits):.0f} to {max(waits):.0f} ms")
        finally:
            dev.terminate()
            dev.wait()


if __name__ == "__main__":
    main()
