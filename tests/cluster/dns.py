#!/usr/bin/env python3
"""The cluster's DNS: services, and the pods of headless ones, as dnsmasq's hosts file.

usage: dns.py ADDRESS KUBECTL KUBECONFIG DIRECTORY

Follows Services and Endpoints by `kubectl get --watch`, and starts the dnsmasq that answers on ADDRESS. Only names of
the cluster are known; nothing is asked of another server."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

address, kubectl, kubeconfig, directory = sys.argv[1:]
hosts_file = os.path.join(directory, "hosts")
changes = queue.Queue()


def follow(kind):
    """Puts (kind, event or None) into the queue; None where the list begins anew."""
    while True:
        changes.put((kind, None))
        command = [kubectl, "--kubeconfig", kubeconfig, "get", kind, "-A", "--watch", "--output-watch-events", "-o", "json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:  # This kubectl prints one event a line.
                changes.put((kind, json.loads(line)))
        time.sleep(0.5)  # The watch has run out, or the API server is away.


def records(services, endpoints):
    """The lines of a hosts file."""
    for key, service in services.items():
        name = f"{key[1]}.{key[0]}.svc.cluster.local"
        ip = service["spec"].get("clusterIP")
        if ip and ip != "None":
            yield f"{ip} {name}"
            continue
        for subset in endpoints.get(key, {}).get("subsets") or []:
            for pod in subset.get("addresses") or []:
                if pod.get("hostname"):
                    yield f"{pod['ip']} {pod['hostname']}.{name}"
                yield f"{pod['ip']} {name}"


def write(lines):
    with open(hosts_file + ".part", "w") as file:
        file.writelines(line + "\n" for line in lines)
    os.chmod(hosts_file + ".part", 0o644)
    os.replace(hosts_file + ".part", hosts_file)


os.makedirs(directory, exist_ok=True)
write([])
dnsmasq = subprocess.Popen(
    ["dnsmasq", "--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    + [f"--listen-address={address}", "--bind-interfaces", "--cache-size=0", "--local-ttl=1", f"--addn-hosts={hosts_file}"]
    + ["--local=/cluster.local/", "--pid-file=", "--log-facility=-"]
)
signal.signal(signal.SIGTERM, lambda *_: (dnsmasq.terminate(), os._exit(0)))
for kind in ("services", "endpoints"):
    threading.Thread(target=follow, args=(kind,), daemon=True).start()

known = {"services": {}, "endpoints": {}}
written = []
while dnsmasq.poll() is None:
    try:
        kind, event = changes.get(timeout=1)
    except queue.Empty:
        continue
    if event is None:
        known[kind].clear()
        continue
    item = event["object"]
    key = item["metadata"]["namespace"], item["metadata"]["name"]
    if event["type"] == "DELETED":
        known[kind].pop(key, None)
    else:
        known[kind][key] = item
    if changes.empty():
        lines = sorted(set(records(known["services"], known["endpoints"])))
        if lines != written:
            write(lines)
            written = lines
            dnsmasq.send_signal(signal.SIGHUP)  # It reads the file again.
sys.exit(f"dnsmasq ended with {dnsmasq.returncode}")
