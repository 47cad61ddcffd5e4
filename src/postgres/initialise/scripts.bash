# Runs the files of /docker-entrypoint-initdb.d, whose names are the arguments, in the order given, with the meaning
# that the official image gives them: *.sh executed if executable and else sourced into this one shell (so that what
# one exports the next one sees), SQL fed to psql. The first failure ends everything and is told with its file.
set -Eeo pipefail

# A sourced script shares this shell: its `exit 0` is no success, since whatever should come after it did not run.
podgres_done='' podgres_file=''
podgres_end() {
	local code=$?
	if [ -n "$podgres_done" ]; then return; fi
	printf '%s ended the initialisation with exit code %s\n' "$podgres_file" "$code" >&2
	if [ "$code" = 0 ]; then echo 'exit in a script that is sourced ends all: use return, or chmod +x' >&2; fi
	exit $((code ? code : 1))
}
trap podgres_end EXIT

# Scripts written for the official image call this, and older ones expand the array.
docker_process_sql() {
	local to=()
	if [ -n "$POSTGRES_DB" ]; then to=(--dbname "$POSTGRES_DB"); fi
	psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$POSTGRES_USER" "${to[@]}" "$@"
}

# shellcheck disable=SC2034
psql=(docker_process_sql)

for podgres_file; do
	printf 'running %s\n' "$podgres_file"
	case "$podgres_file" in
	*.sh) if [ -x "$podgres_file" ]; then "$podgres_file"; else . "$podgres_file"; fi ;;
	*.sql) docker_process_sql -f "$podgres_file" ;;
	*.sql.gz) gunzip -c "$podgres_file" | docker_process_sql ;;
	*.sql.xz) xzcat "$podgres_file" | docker_process_sql ;;
	*.sql.zst) zstd -dc "$podgres_file" | docker_process_sql ;;
	*) printf 'ignoring %s\n' "$podgres_file" ;;
	esac
done
podgres_done=yes
