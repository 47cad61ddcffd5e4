//! PostgreSQL's configuration: its layers, what becomes of a mistake, how changes apply, what a standby needs of it.

use std::process::Output;

use serde_json::Value;

use crate::{
    harness::*,
    replication::{Cluster, rows, wait_caught_up},
};

const DATA: &str = "/var/lib/postgresql/data";

fn status(container: &Container) -> Value {
    let text = container.shell("podgres status --json");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn problems(container: &Container) -> String {
    status(container)["problems"].to_string()
}

/// A container with the user's files in `config`, and with a volume if it is to be more than one container's.
fn with(major: u32, config: &Files, options: &[&str], command: &[&str]) -> Container {
    let mount = config.at("/etc/podgres");
    Container::postgres(major, &[&["-v", &mount], options].concat(), command)
}

fn wait_for_setting(container: &Container, name: &str, value: &str) {
    wait_or(
        || format!("{name} to be {value}; the log:\n{}", container.log()),
        || (container.sql(&format!("show {name}")) == value).then_some(()),
    );
}

fn wait_for_problem(container: &Container, text: &str) {
    wait_or(
        || format!("{text:?} in {}; the log:\n{}", problems(container), container.log()),
        || problems(container).contains(text).then_some(()),
    );
}

fn wait_for_no_problem(container: &Container) {
    wait_or(
        || format!("no problem: {}; the log:\n{}", problems(container), container.log()),
        || (problems(container) == "[]").then_some(()),
    );
}

/// Waits until PostgreSQL was started anew, and is ready.
fn restart(container: &Container) {
    let began = |c: &Container| c.sql("select pg_postmaster_start_time()");
    let before = began(container);
    container.shell("podgres restart");
    wait_or(
        || format!("the restart; the log:\n{}", container.log()),
        || {
            let output = container.exec(&["psql", "-U", "postgres", "-XAtqc", "select pg_postmaster_start_time()"]);
            (output.status.success() && stdout(&output) != before).then_some(())
        },
    );
    container.wait_ready();
}

/// `podgres reload` that has to be refused, with this in its answer.
fn reload_refused(container: &Container, texts: &[&str]) {
    let output = container.exec(&["podgres", "reload"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}{}", stdout(&output));
    for text in texts {
        assert!(said.contains(text), "{text:?} is missing: {said}\n{}", container.log());
    }
}

#[test]
fn the_layers_win_in_their_order() {
    let config = Files::new(&[
        (
            "postgresql.conf",
            0o644,
            "work_mem = 5MB\ninclude 'more.conf'\ninclude_dir 'd'\nmaintenance_work_mem = 41MB\n",
        ),
        ("more.conf", 0o644, "temp_buffers = 10MB\n"),
    ]);
    config.directory("d");
    config.put("d/1.conf", 0o644, "cursor_tuple_fraction = 0.2\n");
    let limits = ["-m", "512m", "--cpus", "1.5"];
    let a = with(15, &config, &limits, &["-c", "autovacuum_work_mem=42MB", "-c", "vacuum_cost_limit=300"]).ready();
    let all =
        "select string_agg(name || '=' || current_setting(name), ' ' order by name) from pg_settings where name in
        ('shared_buffers', 'effective_cache_size', 'max_parallel_workers', 'wal_log_hints', 'work_mem', 'temp_buffers',
         'cursor_tuple_fraction', 'maintenance_work_mem', 'autovacuum_work_mem', 'vacuum_cost_limit')";
    assert_eq!(
        a.sql(all),
        "autovacuum_work_mem=42MB cursor_tuple_fraction=0.2 effective_cache_size=384MB maintenance_work_mem=41MB \
         max_parallel_workers=2 shared_buffers=128MB temp_buffers=10MB vacuum_cost_limit=300 wal_log_hints=on \
         work_mem=5MB"
    );
    // The data directory's own file is in force, below config-dir's, and above the defaults.
    a.shell("printf 'work_mem = 6MB\\nseq_page_cost = 3\\neffective_cache_size = 100MB\\n' >>$PGDATA/postgresql.conf");
    wait_for_setting(&a, "seq_page_cost", "3");
    assert_eq!((a.sql("show work_mem"), a.sql("show effective_cache_size")), ("5MB".into(), "100MB".into()));
    // ALTER SYSTEM wins over files, the command line over that.
    a.sql("alter system set work_mem = '7MB'");
    a.sql("alter system set vacuum_cost_limit = 400");
    a.shell("podgres reload");
    assert_eq!((a.sql("show work_mem"), a.sql("show vacuum_cost_limit")), ("7MB".into(), "300".into()));
    // More memory, larger defaults.
    let b = Container::postgres(17, &["-m", "1g"], &[]).ready();
    assert_eq!((b.sql("show shared_buffers"), b.sql("show effective_cache_size")), ("256MB".into(), "768MB".into()));
}

#[test]
fn the_users_rules_are_used_and_do_not_lock_a_standby_out() {
    for major in majors() {
        let config = Files::new(&[
            ("pg_hba.conf", 0o644, "local all all trust\nhost all all all reject\n"),
            ("pg_ident.conf", 0o644, "m1 someone postgres\n"),
        ]);
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let mount = config.at("/etc/podgres");
        let a = cluster.member(&va, &["-v", &mount], &[]).ready();
        a.sql("create table t (t text); insert into t values ('common')");
        let b = cluster.standby(&vb, &a).ready();
        wait_caught_up(&a, &b);
        let rejected = b.exec(&["psql", "-XAtq", "-U", "postgres", "-h", &a.name, "-c", "select 1"]);
        assert!(stderr(&rejected).contains("rejects connection"), "{}", stderr(&rejected));
        assert_eq!(a.sql("select map_name || ' ' || sys_name from pg_ident_file_mappings"), "m1 someone");
        let first = a.sql("select user_name[1] from pg_hba_file_rules order by line_number limit 1");
        assert_eq!(first, "podgres");
    }
}

#[test]
fn a_mistake_at_a_running_server_keeps_the_old_configuration_and_names_the_users_line() {
    const GOOD: [(&str, &str); 3] = [
        ("postgresql.conf", "# mine\nwork_mem = 5MB\n"),
        ("pg_hba.conf", "local all all trust\nhost all all all scram-sha-256\n"),
        ("pg_ident.conf", "# map\nm1 someone postgres\n"),
    ];
    for major in majors() {
        let config = Files::new(&GOOD.map(|(name, text)| (name, 0o644, text)));
        let a = with(major, &config, &[], &[]).ready();
        for (name, text, line, why) in [
            ("postgresql.conf", "# mine\nwork_mem = 6MB\nwrk_mem = 1\n", 3, "unrecognized configuration parameter"),
            ("postgresql.conf", "work_mem = abc\n", 1, "invalid value for parameter"),
            ("postgresql.conf", "work_mem = 6MB\n\nwork mem = 6MB\n", 3, "syntax error"),
            ("postgresql.conf", "work_mem = 6MB\ninclude 'none.conf'\n", 2, "none.conf"),
            ("pg_hba.conf", "local all all trust\nhost all all all no-such-method\n", 2, "no-such-method"),
            ("pg_ident.conf", "m1 someone postgres\nm1 only-two\n", 2, "missing entry"),
        ] {
            config.put(name, 0o644, text);
            let place = format!("/etc/podgres/{name}:{line}: ");
            reload_refused(&a, &[&place, why]);
            wait_for_problem(&a, &place);
            assert_eq!(a.sql("show work_mem"), "5MB", "{text}");
            assert!(a.json_lines().iter().any(|l| l["level"] == "error" && l["msg"].to_string().contains(&place)));
            // The old rules are in force, and stay so when somebody else reloads PostgreSQL.
            a.sql("select pg_reload_conf()");
            assert_eq!(a.sql("select count(*) from pg_hba_file_rules where error is not null"), "0");
            assert_eq!(a.sql("select count(*) from pg_ident_file_mappings where error is not null"), "0");
            let (_, good) = GOOD.iter().find(|(n, _)| *n == name).unwrap();
            config.put(name, 0o644, good);
            wait_for_no_problem(&a);
            assert!(a.exec(&["podgres", "reload"]).status.success());
        }
        assert_eq!(a.sql("select pg_postmaster_start_time() > pg_conf_load_time()"), "f");
    }
}

#[test]
fn a_mistake_in_the_data_directorys_own_rules_has_its_line() {
    let scripts = Files::new(&[("1.sql", 0o644, "create table made_by_a_script ()")]);
    let mount = scripts.at("/docker-entrypoint-initdb.d");
    for major in majors() {
        // Without a password there are no rules of podgres' own, and PostgreSQL reads the file where it is.
        let a = Container::start(major, &["-e", "POSTGRES_HOST_AUTH_METHOD=trust"], &[]).ready();
        a.shell("sed -i '1i nonsense' $PGDATA/pg_hba.conf");
        reload_refused(&a, &["/pg_hba.conf:1: invalid connection type"]);
        wait_for_problem(&a, "/pg_hba.conf:1: ");
        a.shell("sed -i 1d $PGDATA/pg_hba.conf");
        wait_for_no_problem(&a);
        // Rules that let nobody in by the socket do not hinder an initialisation.
        let config = Files::new(&[("pg_hba.conf", 0o644, "host all all all trust\n")]);
        let b = with(major, &config, &["-v", &mount, "-e", "POSTGRES_DB=app"], &[]).ready();
        let found = b.shell("psql -XAtq -h 127.0.0.1 -U postgres app -c \"select to_regclass('made_by_a_script')\"");
        assert_eq!(found, "made_by_a_script");
    }
}

#[test]
fn a_start_with_mistakes_falls_back_to_what_worked_and_says_so() {
    for major in majors() {
        let config = Files::new(&[("postgresql.conf", 0o644, "work_mem = 4MB\n")]);
        let a = with(major, &config, &[], &[]).ready();
        // What was reloaded and is in force as a whole has worked, too.
        config.put("postgresql.conf", 0o644, "work_mem = 5MB\n");
        assert!(a.exec(&["podgres", "reload"]).status.success());
        wait_for("it to be kept", || {
            a.shell("cat $PGDATA/../.*.podgres/config/proven.json").contains("5MB").then_some(())
        });
        // Mistakes that PostgreSQL's check finds, and those that only a start does.
        for (file, text, said) in [
            ("postgresql.conf", "work_mem = 6MB\nwrk_mem = 1\n", "/etc/podgres/postgresql.conf:2: unrecognized"),
            (
                "postgresql.conf",
                "unix_socket_directories = '/none'\nwork_mem = 6MB\n",
                "unix_socket_directories (/etc/podgres/postgresql.conf:1)",
            ),
            (
                "postgresql.conf",
                "shared_preload_libraries = 'none'\nwork_mem = 6MB\n",
                "what is new in it: shared_preload_libraries",
            ),
            ("pg_hba.conf", "local all all no-such-method\n", "what is new in it: /etc/podgres/pg_hba.conf"),
        ] {
            a.signal("TERM");
            assert_eq!(a.wait(), 0, "{}", a.log());
            config.put(file, 0o644, text);
            a.start_again();
            a.wait_ready();
            assert_eq!(a.sql("show work_mem"), "5MB");
            assert!(problems(&a).contains(said), "{}", problems(&a));
            assert!(problems(&a).contains("started with the last one that was good"), "{}", problems(&a));
            assert!(a.stdout().contains(said), "{}", a.log());
            if file == "pg_hba.conf" {
                // The server that runs now can tell.
                reload_refused(&a, &["/etc/podgres/pg_hba.conf:1: ", "no-such-method"]);
            }
            config.put("postgresql.conf", 0o644, "work_mem = 5MB\n");
            if file != "postgresql.conf" {
                config.remove(file);
            }
            wait_for_no_problem(&a);
        }
        // Without a restart of the container it is no different.
        config.put("postgresql.conf", 0o644, "work_mem = 7MB\nunix_socket_directories = '/none'\n");
        wait_for_setting(&a, "work_mem", "7MB");
        restart(&a);
        assert_eq!((a.sql("show work_mem"), a.sql("show unix_socket_directories") == "/none"), ("5MB".into(), false));
        wait_for_problem(&a, "ended before it was ready");
        config.put("postgresql.conf", 0o644, "work_mem = 8MB\n");
        wait_for_setting(&a, "work_mem", "8MB");
        wait_for_no_problem(&a);
    }
}

#[test]
fn the_exit_code_of_a_first_configuration_with_mistakes() {
    let volume = Volume::new();
    volume.shell("chown 999:999 /volume; chmod 700 /volume; touch /volume/.keep");
    let config = Files::new(&[("postgresql.conf", 0o644, "\nwrk_mem = 1\n")]);
    let (data, files) = (volume.at(DATA), config.at("/etc/podgres"));
    let start =
        |files: &str, command: &[&str]| run(15, &["-v", &data, "-v", files, "-e", "POSTGRES_PASSWORD=x"], command);
    let places = ["/etc/podgres/postgresql.conf:2: unrecognized configuration parameter"];
    let refused = |output: Output, wanted: i32, texts: &[&str]| {
        let (said, log) = (stderr(&output), stdout(&output));
        assert_eq!(output.status.code(), Some(wanted), "{said}\n{log}");
        let reason = log.lines().map(json_line).find(|l| l["level"] == "error").map(|l| l["msg"].to_string());
        for text in texts {
            assert!(said.contains(text) && reason.as_ref().is_some_and(|r| r.contains(text)), "{text}: {said}\n{log}");
        }
    };
    // In a file: it is named, the container is to be left alone until somebody corrects it.
    let before = volume.snapshot();
    refused(start(&files, &[]), 78, &places);
    assert_eq!(volume.snapshot(), before);
    // Rules can only be tried by a server; the unfinished data directory is removed.
    let rules = Files::new(&[("pg_hba.conf", 0o644, "local all all trust\nhost all all all none-such\n")]);
    refused(start(&rules.at("/etc/podgres"), &[]), 78, &["/etc/podgres/pg_hba.conf:2: ", "none-such"]);
    assert_eq!(volume.shell("find /volume -type f"), "/volume/.keep");
    let before = volume.snapshot();
    // Nowhere in a file: the code that PostgreSQL has for it.
    let none = Files::new(&[]).at("/etc/podgres");
    refused(start(&none, &["-c", "no_such_setting=1"]), 1, &["no_such_setting"]);
    refused(start(&none, &["-c", "work_mem=abc"]), 1, &["work_mem"]);
    assert_eq!(volume.snapshot(), before);
    // The same with a data directory that has never worked.
    let initialised = run(15, &["-v", &data], &["initdb", "-D", &format!("{DATA}/pgdata"), "--no-sync"]);
    assert!(initialised.status.success(), "{}", stderr(&initialised));
    let before = volume.snapshot();
    refused(start(&files, &[]), 78, &places);
    refused(start(&none, &["-c", "work_mem=abc"]), 1, &["work_mem"]);
    assert_eq!(volume.snapshot(), before);
}

#[test]
fn a_change_applies_however_it_is_made() {
    let config = Files::new(&[]);
    let path = config.path();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, path.join(name)).unwrap();
    // As a ConfigMap is mounted.
    config.directory("..2024_1");
    config.put("..2024_1/postgresql.conf", 0o644, "work_mem = 1MB\n");
    link("..2024_1", "..data");
    link("..data/postgresql.conf", "postgresql.conf");
    let a = with(15, &config, &[], &[]).ready();
    assert_eq!(a.sql("show work_mem"), "1MB");
    for (to, value) in [("..2024_2", "2MB"), ("..2024_3", "3MB")] {
        config.directory(to);
        config.put(&format!("{to}/postgresql.conf"), 0o644, &format!("work_mem = {value}\n"));
        link(to, "..data_tmp");
        std::fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        wait_for_setting(&a, "work_mem", value);
    }
    // Where the links lead to.
    config.put("..2024_3/postgresql.conf", 0o644, "work_mem = 4MB\n");
    wait_for_setting(&a, "work_mem", "4MB");
    // A file in place of the link, as an editor would do it; then written into; then with an include.
    config.put("new", 0o644, "work_mem = 5MB\n");
    std::fs::rename(path.join("new"), path.join("postgresql.conf")).unwrap();
    wait_for_setting(&a, "work_mem", "5MB");
    config.put("postgresql.conf", 0o644, "work_mem = 6MB\ninclude_if_exists 'below/more.conf'\n");
    wait_for_setting(&a, "work_mem", "6MB");
    config.directory("below");
    config.put("below/more.conf", 0o644, "work_mem = 7MB\n");
    wait_for_setting(&a, "work_mem", "7MB");
    config.remove("postgresql.conf");
    wait_for_setting(&a, "work_mem", "4MB");

    // What is not watched: ALTER SYSTEM without a reload of its own.
    a.sql("alter system set work_mem = '8MB'");
    a.signal("HUP");
    wait_for_setting(&a, "work_mem", "8MB");
    a.sql("alter system set work_mem = '9MB'");
    let reload = a.exec(&["podgres", "reload"]);
    assert!(reload.status.success() && stdout(&reload).contains("has reloaded it"), "{}", stderr(&reload));
    assert_eq!(a.sql("show work_mem"), "9MB", "a reload is over when podgres reload ends");
}

#[test]
fn what_waits_for_a_restart_is_named_and_applied_by_one() {
    let config = Files::new(&[("postgresql.conf", 0o644, "")]);
    let a = with(15, &config, &[], &["postgres", "-c", "max_wal_senders=7"]).ready();
    config.put("postgresql.conf", 0o644, "max_connections = 77\nshared_buffers = 64MB\nmax_wal_senders = 9\n");
    let reload = a.exec(&["podgres", "reload"]);
    let said = stdout(&reload);
    assert!(said.contains("waits for a restart: max_connections 100 → 77"), "{said}");
    assert!(!said.contains("max_wal_senders"), "the command line wins at each start: {said}");
    let pending = &status(&a)["members"][0]["postgres"]["pending_restart"];
    let of = |name: &str| pending.as_array().unwrap().iter().find(|p| p["name"] == name).cloned().unwrap_or_default();
    assert_eq!(
        (of("max_connections")["value"].as_str(), of("max_connections")["new_value"].as_str()),
        (Some("100"), Some("77"))
    );
    assert!(of("shared_buffers")["new_value"].as_str().is_some_and(|v| v.contains("64MB")), "{pending}");
    restart(&a);
    assert_eq!((a.sql("show max_connections"), a.sql("show shared_buffers")), ("77".into(), "64MB".into()));
    assert_eq!(status(&a)["members"][0]["postgres"]["pending_restart"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_standby_has_at_least_what_its_primary_has() {
    for major in majors() {
        let more = Files::new(&[(
            "postgresql.conf",
            0o644,
            "max_connections = 110\nmax_worker_processes = 12\nmax_wal_senders = 13\n\
             max_prepared_transactions = 14\nmax_locks_per_transaction = 70\n",
        )]);
        let less = Files::new(&[(
            "postgresql.conf",
            0o644,
            "max_connections = 50\nmax_worker_processes = 8\nmax_wal_senders = 8\n\
             max_prepared_transactions = 2\nmax_locks_per_transaction = 64\n",
        )]);
        let (cluster, va, vb) = (Cluster::new(major), Volume::new(), Volume::new());
        let mount = more.at("/etc/podgres");
        let a = cluster.member(&va, &["-v", &mount], &[]).ready();
        a.sql("create table t (t text); insert into t values ('common')");
        let (mount, source) = (less.at("/etc/podgres"), format!("PODGRES_STANDBY_OF=host={}", a.name));
        let b = cluster.member(&vb, &["-v", &mount, "-e", &source], &[]).ready();
        wait_caught_up(&a, &b);
        let findings = status(&b)["findings"].to_string();
        for (name, here, primary) in [
            ("max_connections", 50, 110),
            ("max_worker_processes", 8, 12),
            ("max_wal_senders", 8, 13),
            ("max_prepared_transactions", 2, 14),
            ("max_locks_per_transaction", 64, 70),
        ] {
            assert_eq!(b.sql(&format!("show {name}")), primary.to_string());
            let text = format!("{name} is {here} here and {primary} on the primary: started with {primary}");
            assert!(findings.contains(&text), "{text}: {findings}");
        }
        assert!(!findings.contains("waits for a restart"), "{findings}");
        // The primary gets more, is restarted, and its standby follows without anybody's help.
        let began = b.sql("select pg_postmaster_start_time()");
        more.put("postgresql.conf", 0o644, "max_connections = 200\n");
        restart(&a);
        assert_eq!(a.sql("show max_connections"), "200");
        a.sql("insert into t values ('more')");
        wait_caught_up(&a, &b);
        assert_eq!((rows(&b), b.sql("show max_connections")), ("common more".into(), "200".into()));
        assert_ne!(b.sql("select pg_postmaster_start_time()"), began);
        let warned = b.json_lines().iter().any(|l| {
            l["level"] == "warn" && l["msg"].as_str().is_some_and(|m| m.contains("restarted with") && m.contains("200"))
        });
        assert!(warned, "{}", b.log());
    }
}

#[test]
fn what_podgres_owns_cannot_be_overridden_and_secrets_stay_secret() {
    let command = |secret: &str| format!("archive_mode = on\narchive_command = 'true {secret}'\n");
    let config = Files::new(&[("postgresql.conf", 0o644, &command("password=hush-1"))]);
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let a = cluster.primary(&va);
    a.sql("create table t (t text); insert into t values ('common')");
    let (mount, source) = (config.at("/etc/podgres"), format!("PODGRES_STANDBY_OF=host={}", a.name));
    let b = cluster.member(&vb, &["-v", &mount, "-e", &source], &["-c", "my.token=hush-2"]).ready();
    wait_caught_up(&a, &b);

    b.sql("alter system set primary_conninfo = 'host=elsewhere password=hush-3'");
    b.sql("alter system set primary_slot_name = 'elsewhere'");
    b.sql("alter system set work_mem = '7MB'");
    assert!(b.exec(&["podgres", "reload"]).status.success());
    b.wait_for_message("removed from postgresql.auto.conf");
    assert_eq!(b.sql("show work_mem"), "7MB");
    assert!(b.sql("show primary_conninfo").contains(&a.name));
    b.shell("! grep primary_ $PGDATA/postgresql.auto.conf");
    // Also when somebody else has it loaded.
    b.sql("alter system set primary_conninfo = 'host=elsewhere password=hush-3'");
    b.sql("select pg_reload_conf()");
    wait_or(
        || b.log(),
        || b.exec(&["bash", "-c", "! grep primary_ $PGDATA/postgresql.auto.conf"]).status.success().then_some(()),
    );
    wait_or(|| b.log(), || b.sql("show primary_conninfo").contains(&a.name).then_some(()));
    a.sql("insert into t values ('more')");
    wait_caught_up(&a, &b);

    // A change, which PostgreSQL itself would log; a mistake in the value; the value of a mistaken name.
    config.put("postgresql.conf", 0o644, &command("password=hush-4"));
    wait_or(|| b.log(), || b.sql("show archive_command").contains("hush-4").then_some(()));
    config.put("postgresql.conf", 0o644, "archive_mode = on\narchive_command = 'true password=hush-5\n");
    reload_refused(&b, &["/etc/podgres/postgresql.conf:2: syntax error"]);
    config.put("postgresql.conf", 0o644, "archive_mode = on\narchive_comand = 'true password=hush-6'\n");
    reload_refused(&b, &["/etc/podgres/postgresql.conf:2: ", "archive_comand"]);
    // A restart falls back, a failing command is reported by PostgreSQL.
    restart(&b);
    config.put("postgresql.conf", 0o644, &command("password=hush-4"));
    b.sql("alter system set archive_command = 'false password=hush-7'");
    b.shell("podgres reload; podgres promote");
    b.sql("select pg_switch_wal()");
    b.wait_for_message("archive command failed");
    b.signal("USR2");
    b.wait_for_message("the manager's state");
    let seen = [b.log(), b.shell("podgres status; podgres status --json; podgres status --settings")].concat();
    let leak = seen.lines().find(|l| l.contains("hush-") && !l.contains("hush-hush"));
    assert_eq!(leak, None, "a secret is told");
    assert!(seen.contains("archive_command"), "{seen}");
}

#[test]
fn a_mistake_in_the_settings_file_keeps_the_old_settings() {
    let config = Files::new(&[("podgres.toml", 0o644, "shutdown-timeout = \"9s\"\n")]);
    let a = with(15, &config, &[], &[]).ready();
    config.put("podgres.toml", 0o644, "shutdown-timout = \"1s\"\n");
    reload_refused(&a, &["podgres.toml", "shutdown-timout", "podgres keeps its old settings"]);
    a.signal("USR2");
    a.wait_for_message("the manager's state");
    assert!(a.stdout().contains("shutdown_timeout: 9s"), "{}", a.log());
    config.put("podgres.toml", 0o644, "shutdown-timeout = \"8s\"\n");
    assert!(a.exec(&["podgres", "reload"]).status.success());
    a.signal("USR2");
    wait_for("the new settings", || a.stdout().contains("shutdown_timeout: 8s").then_some(()));
}

#[test]
fn a_mistake_keeps_no_standby_from_its_source() {
    let (cluster, va, vb) = (Cluster::new(17), Volume::new(), Volume::new());
    let a = cluster.primary(&va);
    let follows = format!("standby-of = \"host={}\"\n", a.name);
    let config = Files::new(&[("podgres.toml", 0o644, &follows), ("postgresql.conf", 0o644, "work_mem = 5MB\n")]);
    let b = cluster.member(&vb, &["-v", &config.at("/etc/podgres")], &[]).ready();
    b.signal("TERM");
    assert_eq!(b.wait(), 0);
    // It starts without its source, since that cannot be asked, and with a mistake that comes later.
    a.pause();
    b.start_again();
    b.wait_for_message("without its source");
    config.put("postgresql.conf", 0o644, "work_mem = 6MB\nwrk_mem = 1\n");
    wait_for_problem(&b, "/etc/podgres/postgresql.conf:2");
    a.unpause();
    b.wait_ready();
    assert_eq!(b.sql("show work_mem"), "5MB");
    wait_for_problem(&b, "/etc/podgres/postgresql.conf:2");
    config.put("postgresql.conf", 0o644, "work_mem = 6MB\n");
    wait_for_no_problem(&b);
    assert_eq!(b.sql("show work_mem"), "6MB");
}

#[test]
fn a_file_that_names_another_data_directory_leads_nowhere_else() {
    let elsewhere = "data_directory = '/tmp/elsewhere'\nlog_min_messages = panic\n";
    let config = Files::new(&[("postgresql.conf", 0o644, elsewhere)]);
    let a = with(15, &config, &[], &[]).ready();
    assert_eq!(a.sql("show data_directory"), a.shell("echo $PGDATA"));
    // And what a file does to the log hides no mistake.
    config.put("postgresql.conf", 0o644, &format!("{elsewhere}wrk_mem = 1\n"));
    wait_for_problem(&a, "/etc/podgres/postgresql.conf:3: unrecognized configuration parameter");
}
