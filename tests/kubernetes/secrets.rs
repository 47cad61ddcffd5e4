//! A whole life of a cluster leaves its secrets nowhere: not in what is logged, shown, noted or told to another process.

use podgres::settings::Settings;
use tokio_postgres::NoTls;

use crate::{api::CORE, client, cluster::Cluster, harness::*, member::Member};

/// In a connection string that somebody sets, and in a settings file with a mistake.
const CONNINFO: &str = "conninfo-hush";
const MISTAKE: &str = "mistake-hush";

/// What is to be found nowhere.
fn secrets(members: &[Member<'_>], verifiers: &str) -> Vec<String> {
    let environment = [("POSTGRES_PASSWORD".to_string(), client::PASSWORD.to_string())];
    let settings = Settings::load(&Default::default(), &environment).expect("settings");
    let derived = settings.replication.password.expect("one is derived").expose().to_string();
    let known = [client::PASSWORD, CONNINFO, MISTAKE].map(str::to_string);
    let tokens = members.iter().map(Member::token);
    known.into_iter().chain([derived]).chain(tokens).chain(verifiers.lines().map(str::to_string)).collect()
}

/// The arguments and the environment of every process that the manager has, again and again until a file says that it is
/// enough: which of them have one of these, and their names. What docker executes has its environment from docker.
fn watch_processes(container: &Container, secrets: &[String]) -> String {
    let patterns = secrets.join("\n");
    let script = "while [ ! -e /tmp/enough ]; do
            for p in /proc/[0-9]*; do
                read -r _ _ _ parent _ <$p/stat || continue
                [ $p = /proc/1 ] || [ \"$parent\" = 0 ] || [ \"$parent\" = $$ ] && continue
                cat $p/cmdline $p/environ | tr '\\0' '\\n' | grep -qF -e \"$PATTERNS\" && echo $p $(tr '\\0' ' ' <$p/cmdline)
            done
            sleep 0.05
        done 2>/dev/null; true";
    let patterns = format!("PATTERNS={patterns}");
    let environment = ["-e", "POSTGRES_PASSWORD=", "-e", "PGPASSWORD=", "-e", &patterns];
    stdout(&docker(&[&["exec"], &environment[..], &[&container.name, "bash", "-uc", script]].concat()))
}

/// The files of the container that have one of these, but for the token where it is mounted; with their modes.
fn files(container: &Container, secrets: &[String]) -> String {
    let patterns = format!("PATTERNS={}", secrets.join("\n"));
    let script = "cd /; for d in *; do case $d in proc|sys|usr) ;; *) echo $d; esac; done |
        xargs -I% grep -rlF --devices=skip -e \"$PATTERNS\" /% 2>/dev/null | grep -v serviceaccount | xargs -r stat -c '%a %n'; true";
    let environment = ["--user", "0:0", "-e", "POSTGRES_PASSWORD=", "-e", &patterns];
    docker_ok(&[&["exec"], &environment[..], &[&container.name, "bash", "-c", script]].concat())
}

/// Clients with passwords that are wrong, and one of them nearly right.
fn guess(member: &Member<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (user, password) in [("postgres", "wrong"), ("podgres", client::PASSWORD), ("nobody", client::PASSWORD)] {
        let mut config = client::config(member.address());
        config.user(user).password(password);
        let asked = runtime.block_on(async { config.connect(NoTls).await.map(drop) });
        assert!(asked.is_err(), "{user}");
    }
}

/// What the member shows to whom it may, its state in the log included.
fn shown(member: &Member<'_>) -> String {
    member.container.signal("USR2");
    member.container.wait_for_message("the manager's state");
    let commands: [&[&str]; 4] = [&["status"], &["status", "--json"], &["status", "--settings"], &["check"]];
    let commands = commands.map(|arguments| member.podgres(arguments));
    let commands: String = commands.iter().map(|output| stdout(output) + &stderr(output)).collect();
    let paths = ["/livez", "/startupz", "/readyz", "/primary", "/replica", "/status", "/metrics", "/member"];
    let answers: String = paths.iter().map(|path| client::http(member.address(), path).1).collect();
    commands + &answers
}

/// A change of who leads, a crash, a new copy, mistakes.
fn live(cluster: &Cluster, members: &mut [Member<'_>], config: &Files) -> String {
    let mut seen = String::new();
    let p = cluster.settle(members).n;
    guess(&members[p]);
    members[p].query(&format!("alter system set primary_conninfo = 'host=x password={CONNINFO}'"));
    members[p].podgres(&["reload"]);
    let output = members[1 - p].podgres(&["promote"]);
    assert!(output.status.success(), "{output:?}");
    let p = cluster.settle(members).n;
    let copy = members[1 - p].copy();
    members[1 - p].podgres(&["reinit"]);
    cluster.wait("a new copy", || (members[1 - p].copy() != copy).then_some(()));
    cluster.settle(members);
    config.put("podgres.toml", 0o644, &format!("replication-password = {MISTAKE}\n"));
    seen += &members.iter().map(shown).collect::<String>();
    let reload = members[p].podgres(&["reload"]);
    assert!(!reload.status.success());
    seen += &(stdout(&reload) + &stderr(&reload));
    config.put("podgres.toml", 0o644, "");
    members[p].kill();
    seen += &members[p].container.log();
    members[p].restart_in_place();
    cluster.settle(members);
    seen + &members.iter().map(shown).collect::<String>()
}

#[test]
fn a_whole_life_shows_no_secret() {
    let config = Files::new(&[("podgres.toml", 0o644, "")]);
    let mut cluster = Cluster::with(17, &["POSTGRES_HOST_AUTH_METHOD=scram-sha-256"]);
    cluster.options.extend(["-v".to_string(), config.at("/etc/podgres")]);
    let (mut members, p) = cluster.members(2);
    let verifiers = members[p].query("select rolpassword from pg_authid where rolpassword is not null");
    let secrets = secrets(&members, &verifiers);
    assert!(secrets.len() >= 8 && secrets.iter().all(|s| s.len() > 8), "{secrets:?}");

    let containers: Vec<_> = members.iter().map(|m| m.container.name.clone()).collect();
    let (seen, processes) = std::thread::scope(|scope| {
        let watch = |name: &String| {
            let container = std::mem::ManuallyDrop::new(Container { name: name.clone() });
            let secrets = &secrets;
            scope.spawn(move || watch_processes(&container, secrets))
        };
        let watches: Vec<_> = containers.iter().map(watch).collect();
        // One that the watch must find.
        let planted = format!("(exec -a {} sleep 5); true", client::PASSWORD);
        containers.iter().for_each(|c| drop(docker(&["exec", c, "bash", "-c", &planted])));
        let seen = live(&cluster, &mut members, &config);
        members.iter().for_each(|m| drop(m.container.exec(&["touch", "/tmp/enough"])));
        let found: Vec<_> = watches.into_iter().map(|w| w.join().expect("it does not panic")).collect();
        (seen, found)
    });
    let planted = format!("{} 5", client::PASSWORD);
    assert!(processes.iter().all(|found| found.contains(&planted)), "{processes:?}");
    let others = |found: &String| found.lines().any(|line| !line.contains(&planted));
    assert!(!processes.iter().any(others), "{processes:?}");

    let namespace = format!("{CORE}/namespaces/{}", cluster.namespace);
    let api = |what: &str| cluster.api.get(&format!("{namespace}/{what}")).expect("a list").to_string();
    let logs: String = members.iter().map(|m| m.container.log()).collect();
    for (what, text) in [
        ("shown", seen),
        ("logged", logs),
        ("Events", api("events")),
        ("pods", api("pods")),
        ("the Lease", cluster.lease().to_string()),
    ] {
        assert!(text.len() > 200, "{what}: {text}");
        for secret in &secrets {
            let at = text.find(secret.as_str());
            let around =
                at.map(|at| text[..at].chars().rev().take(200).collect::<Vec<_>>().iter().rev().collect::<String>());
            assert_eq!(around, None, "{what} has {secret}");
        }
    }
    // What PostgreSQL stores of passwords is in its data.
    let plain: Vec<_> = secrets.iter().filter(|s| !s.starts_with("SCRAM")).cloned().collect();
    for member in &members {
        let found = files(&member.container, &plain);
        let known =
            |line: &str| line.starts_with("600 /run/podgres/") || line.starts_with("644 /etc/podgres/podgres.toml");
        assert!(found.lines().all(known), "{}: {found}", member.name);
    }
}
