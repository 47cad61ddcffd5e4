# Runs the files of /docker-entrypoint-initdb.d, whose names are the arguments, in the order given, with the meaning
# that the official image gives them: *.sh executed if executable and else sourced into this one shell (so that what
# one exports the next one sees), SQL fed to psql. The first failure ends everything; podgres tells which file it was
# from the last line that says "running".
set -Eeo pipefail

# Scripts written for the official image call this.
docker_process_sql() {
	local to=()
	if [ -n "$POSTGRES_DB" ]; then to=(--dbname "$POSTGRES_DB"); fi
	psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$POSTGRES_USER" "${to[@]}" "$@"
}

for file; do
	printf 'running %s\n' "$file"
	case "$file" in
	*.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
	*.sql) docker_process_sql -f "$file" ;;
	*.sql.gz) gunzip -c "$file" | docker_process_sql ;;
	*.sql.xz) xzcat "$file" | docker_process_sql ;;
	*.sql.zst) zstd -dc "$file" | docker_process_sql ;;
	*) printf 'ignoring %s\n' "$file" ;;
	esac
done
