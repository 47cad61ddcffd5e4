//! The table that feeds the command line, the environment, `podgres.toml`, `--help` and the README.

/// One row of the table of settings.
#[derive(Debug)]
pub struct Setting {
    /// The name: `run-dir` is the flag `--run-dir`, the variable `PODGRES_RUN_DIR` and the file key `run-dir`.
    pub name: &'static str,
    /// What a value looks like, for help texts.
    pub value: &'static str,
    /// The default, in words where it is not a constant.
    pub default: &'static str,
    /// One or two sentences for help texts and the README.
    pub help: &'static str,
}

/// The settings that this version has, in the order in which help texts show them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "mode",
        value: "auto|standalone|kubernetes",
        default: "auto",
        help: "How the member finds its cluster: `standalone`, or `kubernetes`: by the Kubernetes API. Auto: `kubernetes` \
            in a pod with a service account's token and the variable `POD_NAME`.",
    },
    Setting {
        name: "standby-of",
        value: "CONNINFO",
        default: "-",
        help: "A connection string, such as `host=db1`: this member is a standby of that server. An empty data directory \
            is cloned from it; one that is there follows it, rewound or cloned anew if it has diverged.",
    },
    Setting {
        name: "replication-user",
        value: "NAME",
        default: "podgres",
        help: "The role that standbys connect as. A primary makes it.",
    },
    Setting {
        name: "replication-password",
        value: "PASSWORD",
        default: "derived from the superuser's",
        help: "Its password. Members that know the same superuser's password need none.",
    },
    Setting { name: "replication-password-file", value: "FILE", default: "-", help: "A file that holds it instead." },
    Setting {
        name: "slot-retention",
        value: "DURATION",
        default: "24h",
        help: "How long a primary keeps the replication slot, and with it the WAL, of a standby that is gone. \
            `max_slot_wal_keep_size` bounds it too.",
    },
    Setting {
        name: "cluster",
        value: "NAME",
        default: "the StatefulSet's name",
        help: "Kubernetes: the cluster's name, which is that of its Lease and the value of its pods' label \
            `podgres.io/cluster`. The StatefulSet's name is `POD_NAME` without the number at its end.",
    },
    Setting {
        name: "lease-duration",
        value: "DURATION",
        default: "10s",
        help: "Kubernetes: how long a leader stays leader without renewing the Lease, in whole seconds.",
    },
    Setting {
        name: "renew-interval",
        value: "DURATION",
        default: "2s",
        help: "Kubernetes: how often the leader renews the Lease. Three times this, and `fence-margin`, fit into \
            `lease-duration`.",
    },
    Setting {
        name: "fence-margin",
        value: "DURATION",
        default: "2s",
        help: "Kubernetes: a leader that could not renew is stopped this long before the Lease runs out. At least 1.5s \
            and 2 % of `lease-duration`.",
    },
    Setting {
        name: "failsafe",
        value: "on|off",
        default: "on",
        help: "Kubernetes: a leader that does not reach the API stays while the others of the record promise to wait.",
    },
    Setting {
        name: "sync",
        value: "NUMBER",
        default: "0",
        help: "Kubernetes: how many standbys must confirm each commit. While fewer are there, fewer confirm, and `status` \
            says so.",
    },
    Setting {
        name: "sync-strict",
        value: "true|false",
        default: "false",
        help: "Kubernetes, with `sync` 1 or more: commits wait rather than be confirmed by fewer.",
    },
    Setting {
        name: "max-lag-on-failover",
        value: "SIZE",
        default: "16MB",
        help: "Kubernetes: a standby that is further behind does not take over.",
    },
    Setting {
        name: "priority",
        value: "NUMBER",
        default: "100",
        help: "Kubernetes: of standbys that have the same, the one with the highest takes over; 0: never this one.",
    },
    Setting {
        name: "start-timeout",
        value: "DURATION",
        default: "300s",
        help: "Kubernetes: a leader whose PostgreSQL does not start, and makes no progress for so long, gives up the \
            Lease.",
    },
    Setting {
        name: "shutdown-timeout",
        value: "DURATION",
        default: "25s",
        help: "How long a fast shutdown may take; after it, an immediate one (crash recovery at the next start).",
    },
    Setting {
        name: "postgres-bindir",
        value: "DIR",
        default: "found",
        help: "Where `postgres`, `initdb` and their siblings are. Found: /usr/lib/postgresql/*/bin, then PATH.",
    },
    Setting {
        name: "config-dir",
        value: "DIR",
        default: "/etc/podgres",
        help: "Where your `postgresql.conf`, `pg_hba.conf`, `pg_ident.conf` are, and `podgres.toml`, the file form of \
            these settings.",
    },
    Setting {
        name: "run-dir",
        value: "DIR",
        default: "/run/podgres, else /tmp/podgres-UID, else /dev/shm/podgres-UID",
        help: "Sockets and other files that need not outlive the container.",
    },
    Setting {
        name: "listen",
        value: "ADDRESS:PORT",
        default: "[::]:8008",
        help: "Where HTTP (probes, status) is served.",
    },
    Setting {
        name: "tls-dir",
        value: "DIR",
        default: "-",
        help: "Where `tls.crt` and `tls.key` are, and `ca.crt` if members are to know each other by it: TLS for PostgreSQL \
            and HTTP. Changed files are in use at once.",
    },
    Setting {
        name: "tls-only",
        value: "true|false",
        default: "false",
        help: "Connections over TCP without TLS are refused, and members demand of each other a certificate of `ca.crt`.",
    },
    Setting {
        name: "client-ca",
        value: "FILE",
        default: "-",
        help: "CAs of client certificates. The replication role has to have one, with its name as common name, and then \
            needs no password.",
    },
    Setting {
        name: "log-format",
        value: "json|text",
        default: "json, on a terminal text",
        help: "The form of the log lines on stdout.",
    },
];

/// The variable form of a setting's name.
pub fn variable(name: &str) -> String {
    format!("PODGRES_{}", name.replace('-', "_").to_ascii_uppercase())
}
