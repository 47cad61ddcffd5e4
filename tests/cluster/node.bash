# What makes a node of this machine, for up; and what has to be undone of it, for down.
# shellcheck disable=SC2154 # The variables are theirs and common.bash's.

# On the command line of a component that is a client of the API server.
client() {
    make_kubeconfig "$state/$1.kubeconfig" "https://$address:$api_port" "$pki" "$1"
    echo "--kubeconfig=$state/$1.kubeconfig"
}

start_controllers() {
    local kubeconfig
    # A node counts as gone after 8 s, not 40: tests wait for that.
    kubeconfig=$(client kube-controller-manager)
    start kube-controller-manager "$bin/kube-controller-manager" "$kubeconfig" \
        "--authentication-${kubeconfig#--}" "--authorization-${kubeconfig#--}" \
        --bind-address=127.0.0.1 --secure-port=28257 --port=0 --leader-elect=false --controllers='*' \
        --use-service-account-credentials=true "--service-account-private-key-file=$pki/sa.key" "--root-ca-file=$pki/ca.crt" \
        "--cluster-signing-cert-file=$pki/ca.crt" "--cluster-signing-key-file=$pki/ca.key" \
        "--flex-volume-plugin-dir=$state/volume-plugins" --enable-hostpath-provisioner=true --node-monitor-period=1s --node-monitor-grace-period=8s \
        --feature-gates=BoundServiceAccountTokenVolume=true
    kubeconfig=$(client kube-scheduler)
    start kube-scheduler "$bin/kube-scheduler" "$kubeconfig" "--authentication-${kubeconfig#--}" "--authorization-${kubeconfig#--}" \
        --bind-address=127.0.0.1 --secure-port=28259 --port=0 --leader-elect=false
}

proxy_configuration() {
    cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $state/kube-proxy.kubeconfig}
hostnameOverride: $node_name
mode: iptables
bindAddress: 127.0.0.1
healthzBindAddress: 127.0.0.1:28256
metricsBindAddress: 127.0.0.1:28249
nodePortAddresses: [127.0.0.0/8]
oomScoreAdj: 0
# The limits of connection tracking are this machine's, not ours to change.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
}

# Service addresses must not leave the machine while kube-proxy has no rule for them yet: they go to an empty bridge.
start_services() {
    if ! ip link show "$service_bridge" >/dev/null 2>&1; then
        ip link add "$service_bridge" type bridge
        ip link set "$service_bridge" up
        ip route add "$service_network" dev "$service_bridge"
    fi
    start dns python3 "$here/dns.py" "$address" "$bin/kubectl" "$kubeconfig" "$state/dns"
    client kube-proxy >/dev/null
    # It watches this file and exits when somebody writes to it.
    running kube-proxy || proxy_configuration >"$state/kube-proxy.yaml"
    start kube-proxy "$bin/kube-proxy" "--config=$state/kube-proxy.yaml"
}

kubelet_configuration() {
    cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
port: 28250
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
healthzPort: 28248
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet.crt
tlsPrivateKeyFile: $pki/kubelet.key
volumePluginDir: $state/volume-plugins
cgroupDriver: $(docker info --format '{{.CgroupDriver}}')
failSwapOn: false
oomScoreAdj: 0
clusterDNS: [$address]
clusterDomain: cluster.local
# Neither a machine with a full disk nor one with many images is a reason to stop a test, or to delete its images.
# An eviction for want of disk begins with all images that no container uses.
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
# Beside the controllers' 8 s.
nodeStatusUpdateFrequency: 2s
syncFrequency: 5s
featureGates: {BoundServiceAccountTokenVolume: true}
YAML
}

start_kubelet() {
    local kubeconfig
    docker image inspect "$pause_image" >/dev/null 2>&1 ||
        tar -C "$bin" -c pause | docker import --change 'ENTRYPOINT ["/pause"]' - "$pause_image" >"$state/log/pause.log"
    kubeconfig=$(client kubelet)
    kubelet_configuration >"$state/kubelet.yaml"
    start kubelet "$bin/kubelet" "$kubeconfig" "--config=$state/kubelet.yaml" "--hostname-override=$node_name" "--node-ip=$address" \
        "--root-dir=$state/kubelet" "--cert-dir=$state/kubelet/pki" "--experimental-dockershim-root-directory=$state/dockershim" \
        --container-runtime=docker "--docker-endpoint=${DOCKER_HOST:-unix:///var/run/docker.sock}" \
        "--pod-infra-container-image=$pause_image" --network-plugin=
}

start_node() {
    [ "$EUID" -eq 0 ] || die "a node is a matter for root: iptables, mounts, cgroups"
    need docker=docker.io iptables=iptables conntrack=conntrack dnsmasq=dnsmasq-base python3=python3
    docker version >/dev/null || die "the Docker engine does not answer; images/build starts one"
    [ "$address" != 127.0.0.1 ] || die "there is no docker0, the network of pods"
    if ! running kube-proxy && iptables -t nat -n -L KUBE-SERVICES >/dev/null 2>&1; then
        # The bridge is made by start_services alone. A node that was killed, as by a restart of the machine's services,
        # leaves rules and pods of another time behind.
        ip link show "$service_bridge" >/dev/null 2>&1 ||
            die "there are iptables rules of a kube-proxy that was not started here: another Kubernetes runs on this machine"
        ! running kubelet || die "kube-proxy has ended, but the kubelet runs: tests/cluster/down first"
        echo "a node that was not stopped by tests/cluster/down left rules and pods behind: they are removed"
        clear_node
    fi
    start_controllers
    start_services
    start_kubelet
    needs=kubelet wait_for 120 "the node to be ready" kube wait --for=condition=Ready --timeout=1s "node/$node_name"
    needs=kube-controller-manager wait_for 60 "the controllers to make the default service account" kube get serviceaccount default
    needs=kube-proxy wait_for 60 "kube-proxy's rules" iptables -t nat -n -L KUBE-SERVICES
    kube apply -f - >"$state/log/storage.log" <<YAML
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: hostpath, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/host-path
YAML
}

# remove_rules IPTABLES: of kube-proxy and kubelet, by one transaction a table and nothing else: the Docker engine adds
# and removes rules at the same time.
remove_rules() {
    local table rules
    for table in filter nat mangle; do
        rules=$("$1-save" -t "$table" | sed -n '/^-A KUBE-/d; s/^-A \(.* -j KUBE-.*\)/-D \1/p')
        rules+=$'\n'$("$1-save" -t "$table" | sed -n 's/^:\(KUBE-[^ ]*\) .*/-F \1/p')
        rules+=$'\n'$("$1-save" -t "$table" | sed -n 's/^:\(KUBE-[^ ]*\) .*/-X \1/p')
        "$1-restore" --noflush <<<"*$table"$'\n'"$rules"$'\nCOMMIT'
    done
}

# What is left of the node once its processes are gone.
clear_node() {
    local containers
    mapfile -t containers < <(docker ps -aq --filter label=io.kubernetes.pod.uid)
    [ ${#containers[@]} -eq 0 ] || docker rm --force --volumes "${containers[@]}" >/dev/null
    # Tokens, secrets and memory-backed volumes of pods; and its own directory, which the kubelet mounts on itself.
    awk -v directory="$state/kubelet" 'index($2 "/", directory "/") == 1 { print $2 }' /proc/mounts | sort -r |
        while read -r mounted; do umount "$mounted"; done
    remove_rules iptables
    remove_rules ip6tables
    ! ip link show "$service_bridge" >/dev/null 2>&1 || ip link delete "$service_bridge"
    # One tree for each controller in cgroup v1, one for all of them in v2.
    find /sys/fs/cgroup -maxdepth 2 \( -name kubepods -o -name kubepods.slice \) | while read -r tree; do
        find "$tree" -depth -type d -exec rmdir {} +
    done
}
