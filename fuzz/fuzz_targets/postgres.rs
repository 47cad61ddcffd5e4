//! What PostgreSQL's own files and programs say: `pg_controldata`, timeline histories, `postmaster.pid`, positions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use podgres::{
    fuzzing,
    postgres::replication::{
        history::History,
        lsn::{Lsn, Timeline},
    },
};

fuzz_target!(|data: &[u8]| {
    let Some((what, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match what % 5 {
        0 => control_data(&text),
        1 => history(&text),
        2 => pid_file(&text),
        3 => positions(&text),
        _ => {
            if let Some(head) = data.first_chunk() {
                let number = head[16..].try_into().map(u32::from_ne_bytes).expect("four bytes");
                assert_eq!(fuzzing::state(*head).is_some(), number <= 6);
            }
        }
    }
});

fn control_data(text: &str) {
    let demands = fuzzing::demands(text);
    assert!(demands.len() <= 5);
    let Some(data) = fuzzing::control_data(text) else { return };
    let (position, least) = (data.position(), data.least_position());
    assert!(position.is_none() || least.is_none(), "shut down in order, and not: {data:?}");
    if let Some(position) = position {
        assert_eq!(position.system_identifier, data.system_identifier);
        assert!(position.end >= data.checkpoint.min(data.recovery_end));
    }
    let said = format!(
        "Database system identifier: {}\nDatabase cluster state: {}\nLatest checkpoint location: {}\n\
         Latest checkpoint's TimeLineID: {}\nMinimum recovery ending location: {}\nMin recovery ending loc's timeline: {}\n",
        data.system_identifier,
        data.state,
        data.checkpoint,
        data.checkpoint_timeline,
        data.recovery_end,
        data.recovery_timeline
    );
    assert_eq!(fuzzing::control_data(&said), Some(data));
}

fn history(text: &str) {
    let timeline = Timeline(u32::MAX);
    let Ok(history) = History::parse(timeline, text) else { return };
    assert!(history.ancestors.windows(2).all(|two| two[0].0 < two[1].0), "{history:?}");
    assert!(history.ancestors.iter().all(|(ancestor, _)| *ancestor < timeline), "{history:?}");
    assert!(history.ancestors.iter().all(|(ancestor, end)| history.left(*ancestor) == Some(*end)));
    let line = |(ancestor, end): &(Timeline, Lsn)| format!("{ancestor}\t{end}\tno recovery target specified\n\n");
    let said: String = history.ancestors.iter().map(line).collect();
    assert_eq!(History::parse(timeline, &said), Ok(history));
}

fn pid_file(text: &str) {
    let Some(file) = fuzzing::pid_file(text) else { return };
    assert!(file.pid.as_raw() > 0, "{file:?}");
    assert!(file.socket_dir.is_none_or(|dir| !dir.as_os_str().is_empty()));
}

fn positions(text: &str) {
    let Ok(lsn) = text.parse::<Lsn>() else { return };
    assert_eq!(lsn.to_string().parse(), Ok(lsn));
    for size in [1 << 20, 16 << 20, 1 << 30] {
        let name = lsn.segment(size);
        assert!(name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    }
}
