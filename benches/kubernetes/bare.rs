//! The same by hand: PostgreSQL's own programs, called by scripts that know what to do and decide nothing.

use std::{net::Ipv4Addr, time::Instant};

use postgres::NoTls;

use crate::{
    common::wait_for,
    harness::{Container, docker_ok, image, unique},
    load::{Load, config},
    managed::commits,
    manager::PARAMETERS,
    network::Subnet,
    rows::{Figures, PAUSE, Row},
};

/// What the scripts share. `$1` of a function is a directory, whose server listens on the port that it is named after.
const FUNCTIONS: &str = r#"
set -euo pipefail
cd /var/lib/postgresql/data
initialise() {
    initdb --auth=trust --username=postgres -D "$1" >/dev/null
    echo "host all,replication all all trust" >>"$1/pg_hba.conf"
}
clone() { pg_basebackup -R -c fast -X stream -D "$1" -d "host=$2 port=$3 user=postgres"; }
serve() { exec postgres -D "$1" -c port="$1" -c listen_addresses='*' PARAMETERS; }
start() { pg_ctl -D "$1" -w start -l "$1.log" -o "-c port=$1 -c listen_addresses='*' PARAMETERS" >/dev/null; }
"#;

/// Two servers in one container, so that a script hands over without a call into another one.
const PAIR: &str = "initialise 5432; start 5432; clone 5433 127.0.0.1 5432; start 5433; sleep infinity";

/// From one port to another, and the way back prepared.
const HAND_OVER: &str = r#"
psql -q -h 127.0.0.1 -p $FROM -U postgres -c checkpoint
pg_ctl -D $FROM -m fast stop >/dev/null
pg_ctl -D $TO promote >/dev/null
echo "primary_conninfo = 'host=127.0.0.1 port=$TO user=postgres'" >>$FROM/postgresql.auto.conf
touch $FROM/standby.signal
start $FROM
"#;

/// A server that is started again whenever it ends.
const AGAIN: &str = "[ -e 5432 ] || initialise 5432; while :; do (serve 5432) || sleep 0.01; done";

pub fn measure(figures: &mut Figures) {
    let subnet = Subnet::new();
    let network = Network { subnet: &subnet };
    for _ in 0..figures.runs_of(&[Row::First, Row::Next]) {
        network.starts(figures);
    }
    if figures.wanted(&[Row::Switchover]) {
        network.hand_overs(figures);
    }
    if figures.wanted(&[Row::Crash, Row::Restart]) {
        network.returns(figures);
    }
    if figures.wanted(&[Row::Commit]) {
        network.commits(figures);
    }
}

struct Network<'a> {
    subnet: &'a Subnet,
}

impl Network<'_> {
    /// A container with that script, not started.
    fn container(&self, script: &str) -> (Container, Ipv4Addr) {
        let (address, container) = (self.subnet.address(), Container { name: unique("bench") });
        let script = format!("{}\n{script}", functions());
        docker_ok(&[
            "create",
            "--init",
            "--name",
            &container.name,
            "--network",
            &self.subnet.name,
            "--ip",
            &address.to_string(),
            "--entrypoint",
            "bash",
            &image(15),
            "-c",
            &script,
        ]);
        (container, address)
    }

    fn starts(&self, figures: &mut Figures) {
        let (first, address) = self.container("initialise 5432; serve 5432");
        let begun = Instant::now();
        docker_ok(&["start", &first.name]);
        first_write(address);
        figures.add(Row::First, begun.elapsed());

        let (next, standby) = self.container(&format!("clone 5432 {address} 5432; serve 5432"));
        let mut client = config(address, 5432).connect(NoTls).unwrap();
        let begun = Instant::now();
        docker_ok(&["start", &next.name]);
        wait_for_standby(&mut client, standby);
        figures.add(Row::Next, begun.elapsed());
    }

    fn hand_overs(&self, figures: &mut Figures) {
        let (pair, address) = self.container(PAIR);
        docker_ok(&["start", &pair.name]);
        let settled = |port: u16| {
            wait_for("a standby by hand to stream", PAUSE, || {
                let mut client = config(address, port).connect(NoTls).ok()?;
                let sql = "select from pg_stat_replication where state = 'streaming' and not pg_is_in_recovery() \
                           and pg_current_wal_lsn() - replay_lsn < 1000000";
                client.query_opt(sql, &[]).ok()?
            });
        };
        settled(5432);
        let load = Load::start((address, 5432), &[(address, 5432), (address, 5433)]);
        let (mut from, mut to) = (5432, 5433);
        for _ in 0..figures.runs {
            let begun = Instant::now();
            pair.shell(&format!("FROM={from} TO={to}; {}{HAND_OVER}", functions()));
            settled(to);
            load.wait_for_write();
            figures.add_seconds(Row::Switchover, load.gap(begun));
            (from, to) = (to, from);
        }
    }

    fn commits(&self, figures: &mut Figures) {
        let (first, address) = self.container("initialise 5432; serve 5432");
        docker_ok(&["start", &first.name]);
        first_write(address);
        let connect = || config(address, 5432).connect(NoTls).unwrap();
        let mut client = connect();
        let _standbys = ["s1", "s2"].map(|name| {
            let script =
                format!("clone 5432 {address} 5432; echo cluster_name={name} >>5432/postgresql.auto.conf; serve 5432");
            let (standby, place) = self.container(&script);
            docker_ok(&["start", &standby.name]);
            wait_for_standby(&mut client, place);
            standby
        });
        client.batch_execute("alter system set synchronous_standby_names = 'ANY 1 (s1, s2)'").unwrap();
        client.batch_execute("select pg_reload_conf()").unwrap();
        let sql = "select from pg_stat_replication where sync_state = 'quorum'";
        wait_for("two standbys that confirm", PAUSE, || (client.query(sql, &[]).ok()?.len() == 2).then_some(()));
        commits(figures, connect);
    }

    fn returns(&self, figures: &mut Figures) {
        let (server, address) = self.container(AGAIN);
        docker_ok(&["start", &server.name]);
        first_write(address);
        let load = Load::start((address, 5432), &[(address, 5432)]);
        for _ in 0..figures.runs_of(&[Row::Crash]) {
            let begun = Instant::now();
            server.shell("kill -9 $(head -n 1 /var/lib/postgresql/data/5432/postmaster.pid)");
            // Its backends may live on for a moment, and so accept writes; nobody new can connect to them.
            wait_for("a new postmaster", PAUSE, || config(address, 5432).connect(NoTls).ok());
            load.wait_for_write();
            figures.add_seconds(Row::Crash, load.gap(begun));
        }
        for _ in 0..figures.runs_of(&[Row::Restart]) {
            let begun = Instant::now();
            server.signal("KILL");
            std::thread::sleep(crate::world::RESTART.saturating_sub(begun.elapsed()));
            docker_ok(&["start", &server.name]);
            load.wait_for_write();
            figures.add_seconds(Row::Restart, load.gap(begun));
        }
    }
}

fn functions() -> String {
    let parameters: Vec<_> = PARAMETERS.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
    FUNCTIONS.replace("PARAMETERS", &parameters.join(" "))
}

/// Waits until a new server accepts a write.
pub fn first_write(address: Ipv4Addr) {
    wait_for("a first write", PAUSE, || {
        let mut client = config(address, 5432).connect(NoTls).ok()?;
        client.batch_execute("create table first_write (t text)").ok()
    });
}

/// Waits until the server at that address streams.
pub fn wait_for_standby(primary: &mut postgres::Client, standby: Ipv4Addr) {
    let sql = format!("select from pg_stat_replication where state = 'streaming' and client_addr = '{standby}'");
    wait_for("a standby to stream", PAUSE, || primary.query(&sql, &[]).ok().filter(|rows| !rows.is_empty()));
}
