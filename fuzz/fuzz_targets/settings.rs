//! Settings: `podgres.toml`, the environment, `podgres run`'s arguments, connection strings, sizes and times.

#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use podgres::{
    postgres::replication::conninfo::Conninfo,
    settings::{Flags, Settings, split_run_arguments},
    units,
};

const PASSWORD: &str = "hush4711";

thread_local! {
    static DIR: PathBuf = {
        let dir = std::env::temp_dir().join(format!("podgres-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        dir
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((what, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    // Where it is no password it may be told.
    if text.contains(PASSWORD) {
        return;
    }
    match what % 6 {
        0 => DIR.with(|dir| file(dir, &text)),
        1 => DIR.with(|dir| file(dir, &format!("replication-password = \"{PASSWORD}{text}"))),
        2 => conninfo(&text),
        3 => password_in_conninfo(&text),
        4 => environment(&text),
        _ => units(&text),
    }
});

fn file(dir: &Path, text: &str) {
    std::fs::write(dir.join("podgres.toml"), text).expect("the file can be written");
    let config_dir = [("config-dir", dir.to_string_lossy().into_owned())];
    said(Settings::load(&Flags::from(config_dir), &[]));
}

fn said(loaded: Result<Settings, podgres::settings::Error>) {
    let text = match &loaded {
        Ok(settings) => format!("{settings:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!text.contains(PASSWORD), "a password is told: {text}");
    if let Ok(settings) = loaded {
        assert!(settings.shutdown_timeout.as_secs() >= 1 && !settings.replication.user.is_empty());
    }
}

/// What is written is read as it was.
fn conninfo(text: &str) {
    let Ok(info) = Conninfo::parse(text) else { return };
    let said = info.to_string();
    let again = Conninfo::parse(&said).unwrap_or_else(|error| panic!("{said}: {error}"));
    assert_eq!(again.to_string(), said);
    assert_eq!((again.place(), again.password), (info.place(), None));
}

/// A password at any place that it may be taken for: it is in no message.
fn password_in_conninfo(text: &str) {
    for text in [
        format!("postgres://me:{PASSWORD}{text}"),
        format!("host=a password={PASSWORD}{text}"),
        format!("host=a password='{PASSWORD}{text}"),
    ] {
        match Conninfo::parse(&text) {
            Ok(info) => {
                assert!(!info.place().contains(PASSWORD), "{text}: {}", info.place());
                assert!(!format!("{info:?}").contains(PASSWORD), "{text}: {info:?}");
            }
            Err(error) => assert!(!error.to_string().contains(PASSWORD), "{text}: {error}"),
        }
    }
    // The rest of one with a blank in it. Where it is taken for a host it is one.
    let rest = format!("host=a password=x{text} {PASSWORD}=1");
    if let Err(error) = Conninfo::parse(&rest) {
        assert!(!error.to_string().contains(PASSWORD), "{rest}: {error}");
    }
}

/// `NAME=value`, line by line; and the same lines as arguments.
fn environment(text: &str) {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    // No file of this machine's is to be read.
    let pairs = pairs.filter(|(name, value)| !name.ends_with("_FILE") && !value.contains('/'));
    let mut all: Vec<(String, String)> = pairs.map(|(name, value)| (name.into(), value.into())).collect();
    all.push(("PODGRES_CONFIG_DIR".into(), "/nowhere".into()));
    all.push(("PODGRES_REPLICATION_PASSWORD".into(), PASSWORD.into()));
    said(Settings::load(&Flags::new(), &all));
    let arguments: Vec<String> = text.lines().map(String::from).collect();
    if let Ok((flags, rest)) = split_run_arguments(arguments.clone()) {
        assert!(arguments.ends_with(&rest), "{rest:?} is not the end of {arguments:?}");
        assert!(flags.len() <= arguments.len() - rest.len());
    }
}

fn units(text: &str) {
    if let Some(bytes) = units::parse_size(text) {
        assert_eq!(units::parse_size(&bytes.to_string()), Some(bytes));
        assert!(units::size(bytes).len() <= 16 && units::size_of(bytes / 2, bytes).len() <= 32);
    }
    let seconds = text.trim().parse().unwrap_or_default();
    assert!(!units::age(seconds).is_empty() && !units::about(std::time::Duration::from_secs(seconds)).is_empty());
}
