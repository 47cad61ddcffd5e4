use std::{fs::File, io::Write, os::unix::fs::MetadataExt, path::PathBuf};

use serde_json::Value as Json;
use tempfile::TempDir;

use super::*;
use crate::logs::{Format, sink::Captured};

/// A directory on tmpfs, a tailer on it, and what it logs.
struct Bench {
    dir: TempDir,
    sink: Sink,
    captured: Captured,
    tailer: Tailer,
}

impl Bench {
    fn new(kind: Kind) -> Bench {
        Bench::with(kind, |dir| watch(dir).ok())
    }

    fn with(kind: Kind, watch: impl Fn(&Path) -> Option<Inotify>) -> Bench {
        let dir = TempDir::new_in("/dev/shm").unwrap();
        fs::write(dir.path().join("postgres.log"), "of an earlier run\n").unwrap();
        let (sink, captured) = Captured::sink(Format::Json);
        let tailer = Tailer::start_with(dir.path(), kind, sink.clone(), watch(dir.path())).unwrap();
        Bench { dir, sink, captured, tailer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str) -> File {
        fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        self.append(name).write_all(text.as_bytes()).unwrap();
    }

    /// Waits until so many lines are logged.
    fn wait(&self, count: usize) -> Vec<Json> {
        let begin = Instant::now();
        loop {
            let lines = self.captured.json(&self.sink);
            if lines.len() >= count {
                return lines;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "only {} of {count}: {lines:?}", lines.len());
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn finish(self) -> Vec<Json> {
        self.tailer.finish();
        self.captured.json(&self.sink)
    }
}

fn message(text: &str) -> String {
    // In PostgreSQL's order, which serde_json's maps do not keep.
    let text = Json::from(text);
    format!(r#"{{"timestamp":"2026-11-23 10:11:12.123 UTC","pid":1,"error_severity":"LOG","message":{text}}}"#) + "\n"
}

fn messages(lines: &[Json]) -> Vec<&str> {
    lines.iter().map(|line| line["msg"].as_str().unwrap()).collect()
}

#[test]
fn both_files_are_followed_from_their_creation_on() {
    let bench = Bench::new(Kind::Json);
    bench.write("postgres.json", &message("one"));
    assert_eq!(bench.wait(1)[0]["pid"], 1);
    bench.write("postgres.log", "cp: no such file\n");
    let lines = bench.wait(2);
    assert_eq!((&lines[1]["msg"], &lines[1]["logger"]), (&"cp: no such file".into(), &"postgres".into()));
    bench.write("postgres.json", &message("two"));
    bench.wait(3);
    assert_eq!(messages(&bench.finish()), ["one", "cp: no such file", "two"]);
}

#[test]
fn without_inotify_too() {
    let bench = Bench::with(Kind::Json, |_| None);
    bench.write("postgres.json", &message("one"));
    bench.wait(1);
    bench.write("postgres.json", &message("two"));
    bench.wait(2);
}

#[test]
fn csv_records_of_many_lines() {
    let bench = Bench::new(Kind::Csv);
    let record = "2026-11-23 10:11:12.123 UTC,,,41,,6922e0c0.29,1,,2026-11-23 10:11:02 UTC,,0,LOG,00000,\
                  \"two\nlines\",,,,,,,,,\"\",\"postmaster\"\n";
    let (first, second) = record.split_at(100);
    bench.write("postgres.csv", first);
    thread::sleep(2 * REST);
    bench.write("postgres.csv", second);
    assert_eq!(messages(&bench.wait(1)), ["two\nlines"]);
}

#[test]
fn torn_writes_of_long_messages_come_out_whole_and_free_their_space() {
    let bench = Bench::new(Kind::Json);
    let texts: Vec<_> = (0..400).map(|number| format!("{number} {}\n", "ä\"".repeat(7_000))).collect();
    let all: String = texts.iter().map(|text| message(text)).collect();
    let mut file = bench.append("postgres.json");
    for (number, piece) in all.as_bytes().chunks(4_099).enumerate() {
        file.write_all(piece).unwrap();
        if number % 100 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    bench.wait(400);
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), all.len() as u64);
    assert!(all.len() > 8 << 20 && metadata.blocks() * 512 <= 2 << 20, "{} bytes kept", metadata.blocks() * 512);
    let lines = bench.finish();
    assert!(messages(&lines) == texts);
}

#[test]
fn finish_logs_everything_and_the_last_incomplete_line() {
    let bench = Bench::new(Kind::Json);
    // More than is read in one turn, and less than the sink holds if nobody gives its writer any time.
    let count = 25_000;
    let all: String = (0..count).map(|number| message(&number.to_string())).collect();
    bench.write("postgres.json", &all);
    bench.write("postgres.json", r#"{"timestamp":"torn"#);
    bench.write("postgres.log", "no newline");
    let lines = bench.finish();
    assert_eq!(lines.len(), count + 2);
    assert!(messages(&lines).contains(&r#"{"timestamp":"torn"#) && messages(&lines).contains(&"no newline"));
}

#[test]
fn a_truncated_or_replaced_file_is_read_from_its_beginning() {
    let bench = Bench::new(Kind::Json);
    bench.write("postgres.json", &(message("a long first message") + "torn"));
    bench.wait(1);
    bench.append("postgres.json").set_len(0).unwrap();
    bench.wait(2);
    bench.write("postgres.json", &message("2"));
    bench.wait(3);
    fs::rename(bench.path("postgres.json"), bench.path("old")).unwrap();
    bench.write("postgres.json", &message("3"));
    bench.wait(4);
    bench.write("postgres.json", &message("4"));
    assert_eq!(messages(&bench.wait(5)), ["a long first message", "torn", "2", "3", "4"]);
}

/// A thread that has nothing to do is not scheduled once.
#[test]
fn idle_means_asleep() {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let (sink, captured) = Captured::sink(Format::Json);
    let follower = Follower::new(dir.path(), Kind::Json, sink.clone(), watch(dir.path()).ok()).unwrap();
    let stop = Arc::clone(&follower.stop);
    let (started, id) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        started.send(nix::unistd::gettid()).unwrap();
        follower.run();
    });
    let status = format!("/proc/self/task/{}/status", id.recv().unwrap());
    let switches = || {
        let status = fs::read_to_string(&status).unwrap();
        status.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect::<Vec<_>>()
    };
    fs::write(dir.path().join("postgres.json"), message("one")).unwrap();
    while captured.json(&sink).is_empty() {
        thread::sleep(REST);
    }
    thread::sleep(10 * REST);
    let before = switches();
    thread::sleep(30 * REST);
    assert_eq!(switches(), before);
    stop.write(1).unwrap();
    thread.join().unwrap();
}
