//! `/docker-entrypoint-initdb.d`, with the meaning that the official image gives it.

use crate::harness::*;

const DIR: &str = "/docker-entrypoint-initdb.d";

/// Compresses, with the image's own programs, what cannot be written down here.
fn compress(files: &Files) {
    let mount = files.at("/x");
    let script = "cd /x; gzip -k 04.sql; mv 04.sql.gz 05.sql.gz; xz -k 04.sql; mv 04.sql.xz 06.sql.xz; \
                  zstd -q 04.sql -o 07.sql.zst; chmod 644 *.sql.*";
    docker_ok(&["run", "--rm", "-u", "0", "-v", &mount, "--entrypoint", "bash", &image(17), "-euc", script]);
}

#[test]
fn every_kind_of_script_runs_in_the_order_of_the_names() {
    let say = r#"docker_process_sql -c "insert into said (what) values ('$1')""#;
    let files = Files::new(&[
        ("01-table.sql", 0o644, "create table said (at serial, what text);"),
        // Not executable: sourced, so that what it exports is seen by whoever comes later.
        (
            "02-sourced.sh",
            0o644,
            &format!("export SEEN='by the next'; say() {{ {say}; }}; export -f say\nsay sourced\n"),
        ),
        (
            "03-executed.sh",
            0o755,
            "#!/bin/sh\nset -e\ntest \"$POSTGRES_DB\" = shop -a \"$PGPASSWORD\" = hush-hush -a -d \"$PGHOST\"\n\
             test \"$(psql -U \"$POSTGRES_USER\" -d \"$POSTGRES_DB\" -Atc 'select current_user')\" = ada\n\
             psql -U ada -d shop -c \"insert into said (what) values ('executed, $SEEN')\"\n\
             echo 'a line on stdout'; echo 'a line on stderr' >&2\n",
        ),
        ("04.sql", 0o644, "insert into said (what) values ('sql');\n"),
        (
            "08-configure.sh",
            0o644,
            "echo 'work_mem = 7MB' >>\"$PGDATA/postgresql.conf\"\n\
             echo 'host shop nobody 192.0.2.1/32 reject' >>\"$PGDATA/pg_hba.conf\"\n",
        ),
        ("09-restart.sh", 0o755, "#!/bin/bash\npg_ctl -D \"$PGDATA\" -m fast -w restart\n"),
        (
            "10-stdin.sh",
            0o644,
            "docker_process_sql <<<\"insert into said (what) values (current_setting('work_mem'))\"\n",
        ),
        ("11-other-db.sh", 0o644, "docker_process_sql --dbname postgres -c 'create table elsewhere ()'\n"),
        ("12-readme.txt", 0o644, "no script"),
        (".13-hidden.sql", 0o644, "nonsense;"),
        ("9-name-not-number.sql", 0o644, "insert into said (what) values ('last');"),
    ]);
    compress(&files);
    for major in majors() {
        let options = ["-v", &files.at(DIR), "-e", "POSTGRES_USER=ada", "-e", "POSTGRES_DB=shop"];
        let container = Container::postgres(major, &options, &[]).ready();
        let shop = |sql: &str| container.shell(&format!("psql -U ada -d shop -XAtqc \"{sql}\""));
        assert_eq!(
            shop("select string_agg(what, '; ' order by at) from said"),
            "sourced; executed, by the next; sql; sql; sql; sql; 7MB; last"
        );
        assert_eq!(container.shell("psql -U ada -d postgres -XAtqc \"select to_regclass('elsewhere')\""), "elsewhere");
        assert_eq!(shop("show work_mem"), "7MB");
        assert_eq!(shop("select auth_method from pg_hba_file_rules where address = '192.0.2.1'"), "reject");

        let lines = container.json_lines();
        let said = |text: &str| lines.iter().filter(|l| l["msg"].as_str().unwrap().contains(text)).count();
        assert_eq!(said("ignoring /docker-entrypoint-initdb.d/12-readme.txt"), 1);
        assert_eq!((said("a line on stdout"), said("a line on stderr"), said("13-hidden")), (1, 1, 0));
        container.signal("TERM");
        assert_eq!(container.wait(), 0, "{}", container.log());
    }
}

#[test]
fn the_marks_that_others_look_for_are_in_the_log() {
    for major in majors() {
        let container = Container::postgres(major, &[], &[]).ready();
        let count = |text: &str| container.stdout().lines().filter(|l| l.contains(text)).count();
        let ready = "database system is ready to accept connections";
        wait_for("the second ready", || (count(ready) == 2).then_some(()));
        assert_eq!(count("PostgreSQL init process complete; ready for start up."), 1);
        assert_eq!(count("Skipping initialization"), 0);
        container.signal("TERM");
        assert_eq!(container.wait(), 0);
        container.start_again();
        container.wait_ready();
        wait_for("the third ready", || (count(ready) == 3).then_some(()));
        assert_eq!(count("PostgreSQL init process complete; ready for start up."), 1);
        assert_eq!(count("Skipping initialization"), 1);
    }
}

#[test]
fn nothing_answers_clients_until_the_scripts_are_done() {
    let wait = "touch /tmp/waiting\nuntil [ -e /tmp/go ]; do sleep 0.02; done\n";
    let files = Files::new(&[("1.sh", 0o755, &format!("#!/bin/bash\n{wait}"))]);
    let container = Container::postgres(15, &["-v", &files.at(DIR)], &[]);
    wait_for("the script to wait", || container.exec(&["test", "-e", "/tmp/waiting"]).status.success().then_some(()));
    let answers = container.shell(
        "for host in /var/run/postgresql 127.0.0.1 $(hostname -i); do
           ! pg_isready -q -h $host || echo $host answers
           ! psql -h $host -U postgres -c 'select 1' 2>/dev/null || echo $host lets in
         done
         find /var/run/postgresql/ -mindepth 1
         ! podgres status --ready 2>/dev/null || echo ready",
    );
    assert_eq!(answers, "");
    assert_eq!(container.http("/readyz").0, 503);
    assert_eq!(container.http("/livez").0, 200);
    container.shell("touch /tmp/go");
    container.wait_ready();
    assert_eq!(container.sql("select 1"), "1");
}

#[test]
fn a_script_that_fails_is_named_and_all_begins_anew_when_it_is_repaired() {
    for (major, name, mode, bad, good) in [
        (15, "02.sql", 0o644, "select no_such_thing;", "insert into t values (2);"),
        (17, "02.sh", 0o755, "#!/bin/sh\nexit 3\n", "#!/bin/sh\npsql -U postgres -c 'insert into t values (2)'\n"),
        // Whatever a sourced script does to the shell must not look like success.
        (17, "02.sh", 0o644, "false\n", "docker_process_sql -c 'insert into t values (2)'\n"),
        (17, "02.sh", 0o644, "exit 0\n", "docker_process_sql -c 'insert into t values (2)'\n"),
    ] {
        let files = Files::new(&[
            ("01.sql", 0o644, "create table t (x int); insert into t values (1);"),
            (name, mode, bad),
            ("03.sql", 0o644, "insert into t values (3);"),
        ]);
        let volume = Volume::new();
        let mounts = ["-v", &volume.at("/var/lib/postgresql/data"), "-v", &files.at(DIR)];
        let container = Container::postgres(major, &mounts, &[]);
        assert_eq!(container.wait(), 1, "{bad:?}: {}", container.log());
        let named = format!("{DIR}/{name} ended the initialisation with exit code");
        assert!(container.stdout().contains(&named), "{bad:?}: {}", container.log());
        assert!(container.stderr().contains("initialisation failed"), "{}", container.stderr());
        assert!(!container.log().contains(&format!("running {DIR}/03.sql")), "{}", container.log());
        assert_eq!(volume.shell("find /volume -mindepth 2; find /volume -name '.*'"), "", "{bad:?}");

        files.put(name, mode, good);
        container.start_again();
        container.wait_ready();
        assert_eq!(container.sql("select string_agg(x::text, ',' order by x) from t"), "1,2,3");
    }
}
