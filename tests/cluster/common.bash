# What up, down and check share: where things are, and how a process is started, watched and stopped.
# shellcheck disable=SC2034,SC2154 # Much of this is for those who source this file, and $bin is theirs.
me=tests/cluster/$(basename "$0")
PATH=$PATH:/usr/sbin:/sbin

# State, keys, logs and process ids. A second directory is no second cluster: ports and names of interfaces are fixed.
state=${PODGRES_TEST_CLUSTER:-${XDG_CACHE_HOME:-$HOME/.cache}/podgres/cluster}
kubeconfig=$state/admin.kubeconfig
pause_image=podgres-test-pause:1
service_bridge=podgres-svc

# The order is that of starting.
api=(etcd kube-apiserver)
node=(dns kube-controller-manager kube-scheduler kube-proxy kubelet)

die() {
    echo "$me: $*" >&2
    exit 1
}

# need COMMAND=PACKAGE…: images/need, which has much to say when it installs.
need() {
    mkdir -p "$state/log"
    "$here/../../images/need" "$@" >"$state/log/packages.log" 2>&1 || { cat "$state/log/packages.log" >&2; die "these could not be had: $*"; }
}

# born PID: when it started, in clock ticks since boot; a process id alone may be another's by now. Nothing for a zombie.
born() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
    # The name, in parentheses, may have spaces in it.
    read -ra stat <<<"${stat##*) }"
    [ "${stat[0]}" = Z ] || echo "${stat[19]}"
}

# running NAME: whether this component, started by us, still runs.
running() {
    local pid since
    read -r pid since 2>/dev/null <"$state/pid/$1" && [ "$(born "$pid")" = "$since" ]
}

# start NAME COMMAND…: in a session and process group of its own, so that it outlives us and can be stopped with all its
# children. One that runs already is left alone.
start() {
    local name=$1
    shift
    running "$name" && return
    setsid "$@" >>"$state/log/$name.log" 2>&1 </dev/null 9>&- &
    echo "$! $(born $!)" >"$state/pid/$name"
}

# stop NAME: TERM, and after 20 s KILL, for it and its children.
stop() {
    local pid deadline=$((SECONDS + 20))
    if running "$1"; then
        read -r pid _ <"$state/pid/$1"
        kill -TERM -- "-$pid" 2>/dev/null || true
        while running "$1" && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.05; done
        ! running "$1" || echo "$me: $1 did not stop within 20 s of TERM and was killed" >&2
        kill -KILL -- "-$pid" 2>/dev/null || true
    fi
    rm -f "$state/pid/$1"
}

# wait_for SECONDS WHAT COMMAND…: until the command succeeds. Where $needs names a component, its end ends the wait.
wait_for() {
    local seconds=$1 what=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ -n "${needs-}" ] && ! running "$needs"; then
            tail -n 15 "$state/log/$needs.log" >&2
            die "$needs ended while it was waited for $what; its log: $state/log/$needs.log"
        fi
        [ "$SECONDS" -lt "$deadline" ] || die "waited $seconds s for $what${needs:+; see $state/log/$needs.log}"
        sleep 0.1
    done
}

# The admin's kubectl, whatever the caller's KUBECONFIG. Without its cache of discovery, which outlives clusters.
kube() {
    "$bin/kubectl" --kubeconfig "$kubeconfig" --cache-dir "$state/kubectl" --request-timeout 20s "$@"
}

# docker0's address, or nothing where there is none. Containers and the host reach it, other machines do not.
docker_address() {
    ip -4 -o address show docker0 2>/dev/null | awk '{ sub("/.*", "", $4); print $4; exit }'
}
