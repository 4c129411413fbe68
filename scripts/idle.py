#!/usr/bin/env python3
"""What many idle partitions cost, and how long a node's death is felt with them.

Runs a cluster of three nodes in a temporary folder and measures it at rest, without partitions and with many. Then it kills
one node with SIGKILL, tells how long it takes until every group has a primary again, starts the node once more, and tells how
long it takes until all its replicas work.

    scripts/idle.py [--varve target/release/varve] [--partitions 10000] [--rest 60] [--folder FOLDER] [--base-port 7301]

Bytes on the network are those of the loopback device, whoever sends them: to measure nothing but the cluster, run this where
nobody else uses it, for example in a network namespace of its own:

    unshare --net --map-root-user sh -c 'ip link set lo up; scripts/idle.py'
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

STREAM = "idle"
PARTITIONS_PER_TOPIC = 1000
KEYS_PER_PARTITION = 8
SETTLED_SECONDS_MAX = 300
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CELL_WIDTH = 14


def run(varve, folder, *arguments, lines=None):
    """The JSON that a command prints."""
    command = [varve, "--output", "json", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, input=lines)
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit(f"varve {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return json.loads(done.stdout)


def wait_for_status(varve, folder, is_reached, what):
    """Seconds until the status of the cluster is as wished, asked for again and again."""
    start = time.monotonic()
    command = [varve, "--output", "json", "cluster", "status"]
    while time.monotonic() - start < SETTLED_SECONDS_MAX:
        asked = time.monotonic()
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        if done.stdout and is_reached(json.loads(done.stdout)):
            return asked - start
        time.sleep(0.02)
    sys.exit(f"not {what} after {SETTLED_SECONDS_MAX} s")


def is_healthy(status):
    return status["health"] == "healthy"


def are_all_led(status):
    return all(group["available"] for group in status["groups"])


def pids(folder):
    """The processes of the nodes that run."""
    running = json.loads((folder / "varve-data" / "dev.json").read_text())
    return {node["id"]: node["pid"] for node in running["nodes"] if node["pid"]}


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def network_bytes():
    """What the loopback device has carried."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    return 0


def disk_bytes(folder):
    """What the data of all nodes takes on the disk."""
    blocks = (path.lstat().st_blocks for path in (folder / "varve-data").rglob("*"))
    return sum(blocks) * 512


def measure_rest(folder, seconds):
    """What a node costs at rest, on average over the nodes."""
    nodes = list(pids(folder).values())
    cpu, network = [cpu_seconds(pid) for pid in nodes], network_bytes()
    time.sleep(seconds)
    used = [cpu_seconds(pid) - before for pid, before in zip(nodes, cpu)]
    return {
        "CPU %": 100 * sum(used) / len(nodes) / seconds,
        "network kB/s": (network_bytes() - network) / len(nodes) / seconds / 1e3,
        "RSS MB": sum(map(resident_bytes, nodes)) / len(nodes) / 1e6,
        "open files": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in nodes) / len(nodes),
        "disk MB": disk_bytes(folder) / len(nodes) / 1e6,
    }


def create_topics(varve, folder, partitions):
    """Seconds until all partitions are made and all their replicas work."""
    start = time.monotonic()
    run(varve, folder, "stream", "create", STREAM)
    for number in range(0, partitions, PARTITIONS_PER_TOPIC):
        count = min(PARTITIONS_PER_TOPIC, partitions - number)
        topic = f"{STREAM}/{number // PARTITIONS_PER_TOPIC}"
        run(varve, folder, "topic", "create", topic, "--partitions", str(count))
        print(f"created {topic}, {time.monotonic() - start:.1f} s", flush=True)
    wait_for_status(varve, folder, is_healthy, "healthy")
    return time.monotonic() - start


def fill(varve, folder, partitions):
    """Appends records to all partitions but perhaps a few; seconds it takes."""
    start = time.monotonic()
    for number in range(0, partitions, PARTITIONS_PER_TOPIC):
        count = min(PARTITIONS_PER_TOPIC, partitions - number)
        lines = "".join(f"{key}:a small record\n" for key in range(count * KEYS_PER_PARTITION))
        topic = f"{STREAM}/{number // PARTITIONS_PER_TOPIC}"
        run(varve, folder, "produce", topic, "--key-separator", ":", lines=lines.encode())
    return time.monotonic() - start


def last_view_change(folder, victim):
    """When the last replica of the nodes that live began to work in its view, as their logs tell."""
    logs = (folder / "varve-data" / f"node-{node}.log" for node in pids(folder) if node != victim)
    lines = (line for log in logs for line in log.read_text().splitlines() if " normal group=" in line)
    return max(datetime.fromisoformat(line.split("Z")[0] + "+00:00").timestamp() for line in lines)


def kill_and_restart(varve, folder):
    """Kills the node that leads most, and starts it again."""
    status = run(varve, folder, "cluster", "status")
    victim = max(status["nodes"], key=lambda node: node["primary_of"])
    print(f"killing node {victim['id']}, which leads {victim['primary_of']} groups", flush=True)
    killed_at = time.time()
    os.kill(victim["pid"], signal.SIGKILL)
    wait_for_status(varve, folder, are_all_led, "led")
    led = last_view_change(folder, victim["id"]) - killed_at
    print(f"every group worked in a new view after {led:.2f} s", flush=True)

    config = json.loads((folder / "varve-data" / "dev.json").read_text())["config"]
    with open(folder / "restarted.log", "wb") as log:
        command = [varve, "node", "--config", config, "--id", str(victim["id"])]
        node = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    whole = wait_for_status(varve, folder, is_healthy, "whole")
    print(f"every replica of the restarted node works after {whole:.1f} s, CPU {cpu_seconds(node.pid):.1f} s", flush=True)
    return node


def print_table(columns):
    """A row per quantity, a column per measurement."""
    names = next(iter(columns.values())).keys()
    print("".join([" " * CELL_WIDTH, *(f"{head:>{CELL_WIDTH}}" for head in columns)]))
    for name in names:
        cells = (f"{column[name]:>{CELL_WIDTH}.2f}" for column in columns.values())
        print(f"{name:<{CELL_WIDTH}}" + "".join(cells))


def measure(varve, folder, arguments):
    wait_for_status(varve, folder, is_healthy, "healthy")
    columns = {"0 partitions": measure_rest(folder, arguments.rest)}
    seconds = create_topics(varve, folder, arguments.partitions)
    print(f"{arguments.partitions} partitions on three nodes made in {seconds:.1f} s", flush=True)
    columns[f"{arguments.partitions} empty"] = measure_rest(folder, arguments.rest)
    seconds = fill(varve, folder, arguments.partitions)
    print(f"records appended to all of them in {seconds:.1f} s", flush=True)
    columns[f"{arguments.partitions} filled"] = measure_rest(folder, arguments.rest)
    print_table(columns)
    return kill_and_restart(varve, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--varve", default="target/release/varve")
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--rest", type=float, default=60, help="seconds for which the cluster is measured at rest")
    parser.add_argument("--folder", help="where the cluster keeps its data [default: the system's temporary folder]")
    parser.add_argument("--base-port", type=int, default=7301)
    arguments = parser.parse_args()
    varve = str(Path(arguments.varve).resolve())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        command = [varve, "--output", "json", "dev", "--base-port", str(arguments.base_port)]
        dev = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
        node = None
        try:
            if not dev.stdout.readline():
                sys.exit("varve dev did not start")
            node = measure(varve, Path(folder), arguments)
        finally:
            if node:
                node.terminate()
                node.wait()
            dev.terminate()
            dev.wait()


if __name__ == "__main__":
    main()
