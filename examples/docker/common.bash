# shellcheck shell=bash
# What the examples beside this file have in common.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
major=${PG_MAJOR:-17}
# Passwords live outside the checkout. The directory keeps other users of this machine out; the files in it must be
# readable by uid 999, as which the containers run.
# shellcheck disable=SC2034 # used by those who source this
secrets=${XDG_STATE_HOME:-$HOME/.local/state}/podgres

# Postgres needs no privilege and writes nowhere but here: the volume, /tmp, and two directories of sockets.
# Two defaults of Docker are too small for a database: 64 MB of /dev/shm, where parallel queries meet, and 10 s
# between the wish to stop and the kill, in which the last checkpoint must be written.
confined=(--restart unless-stopped
    --read-only --tmpfs /tmp --tmpfs /run/podgres --tmpfs /var/run/postgresql
    --cap-drop ALL --security-opt no-new-privileges --shm-size 256m --stop-timeout 30)

die() {
    echo "$*" >&2
    exit 1
}

# Empty where there is no such container, or no engine to ask.
state() { docker container inspect --format '{{.State.Status}}' "$1" 2>/dev/null || true; }

# The image to run, built if it is not there, or the one that PODGRES_IMAGE names.
image=${PODGRES_IMAGE:-podgres:$major}
build_image() { [ -n "${PODGRES_IMAGE-}" ] || "$here/../../images/build" "$major"; }

# make_password FILE VOLUME: makes it, unless it is there. A volume without it would be one that nobody can log in to.
make_password() {
    [ ! -e "$1" ] || return 0
    ! docker volume inspect "$2" >/dev/null 2>&1 ||
        die "the volume $2 is there, but the password to it, $1, is gone; docker volume rm $2 discards the data"
    install -d -m 0700 "$(dirname "$1")"
    head -c 24 /dev/urandom | base64 | tr '+/' '-_' >"$1"
    chmod 0444 "$1"
}

# run_container NAME PORT PASSWORD-FILE [OPTION…]: with a volume of the same name.
run_container() {
    local name=$1 port=$2 password=$3
    shift 3
    docker run --detach --name "$name" "${confined[@]}" \
        --publish "127.0.0.1:$port:5432" \
        --volume "$name:/var/lib/postgresql" \
        --volume "$password:/run/secrets/postgres-password:ro" \
        --env POSTGRES_PASSWORD_FILE=/run/secrets/postgres-password \
        "$@" "$image" >/dev/null || {
        docker rm "$name" >/dev/null
        exit 1
    }
}

# What the image's health check asks, asked more often.
wait_healthy() {
    local deadline=$((SECONDS + 120))
    until docker exec "$1" podgres status --ready >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            docker logs --tail 20 "$1" >&2
            die "waited two minutes for $1 to become healthy; above, the last it said"
        fi
        sleep 0.2
    done
}

# Where its PostgreSQL is reached from this machine.
address() { docker port "$1" 5432/tcp; }
