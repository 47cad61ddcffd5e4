use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::Instant,
};

use super::*;

const LONG: Duration = Duration::from_secs(10);

/// What came out of a sink.
#[derive(Clone, Default)]
pub(in crate::logs) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(in crate::logs) fn sink(format: Format) -> (Sink, Captured) {
        let captured = Captured::default();
        (Sink::start(captured.clone(), format).unwrap(), captured)
    }

    /// Everything that was pushed into `sink`.
    pub(in crate::logs) fn text(&self, sink: &Sink) -> String {
        assert!(sink.flush(LONG));
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// As [`text`](Captured::text), every line parsed.
    pub(in crate::logs) fn json(&self, sink: &Sink) -> Vec<serde_json::Value> {
        self.text(sink).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that stalls: each write says that it came and waits for leave.
struct Stalled {
    came: Sender<usize>,
    leave: Receiver<()>,
    to: Captured,
}

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.came.send(bytes.len());
        // When the test has dropped its end, writing is free.
        let _ = self.leave.recv();
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stalled() -> (Sink, Captured, Receiver<usize>, Sender<()>) {
    let (came, entered) = channel();
    let (go, leave) = channel();
    let to = Captured::default();
    let sink = Sink::start(Stalled { came, leave, to: to.clone() }, Format::Json).unwrap();
    (sink, to, entered, go)
}

fn numbered(number: u64) -> Vec<u8> {
    format!("{{\"n\":{number},\"fill\":\"{}\"}}\n", "x".repeat(980)).into_bytes()
}

#[test]
fn a_stalled_reader_blocks_nobody_and_losses_are_reported_in_their_place() {
    let (sink, captured, entered, go) = stalled();
    let begin = Instant::now();
    (0..10_000).for_each(|number| sink.push(&numbered(number)));
    assert!(begin.elapsed() < Duration::from_secs(5));
    entered.recv_timeout(LONG).unwrap();
    assert!(!sink.flush(Duration::from_millis(20)));
    let dropped = sink.dropped();
    assert!(sink.shared.lock().waiting < BOUND + 2000, "{}", sink.shared.lock().waiting);

    drop(go);
    assert!(sink.flush(LONG));
    sink.push(&numbered(10_000));
    let lines = captured.json(&sink);
    let kept = 10_000 - dropped;
    assert!(kept * 1010 > BOUND as u64, "{kept}");
    let (report, numbers): (Vec<_>, Vec<_>) = lines.iter().enumerate().partition(|(_, line)| line["n"].is_null());
    assert_eq!(report.len(), 1);
    assert_eq!((report[0].0 as u64, report[0].1["dropped"].as_u64()), (kept, Some(dropped)));
    assert_eq!(report[0].1["level"], "warn");
    let numbers: Vec<_> = numbers.iter().map(|(_, line)| line["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..kept).chain([10_000]).collect::<Vec<_>>());
    assert_eq!(sink.dropped(), dropped);
}

#[test]
fn under_load_lines_are_written_together() {
    let (sink, captured, entered, go) = stalled();
    sink.push(&numbered(0));
    entered.recv_timeout(LONG).unwrap();
    (1..=1000).for_each(|number| sink.push(&numbered(number)));
    drop(go);
    assert_eq!(captured.json(&sink).len(), 1001);
    assert!(entered.try_iter().count() <= 17);
}

#[test]
fn memory_is_given_back_after_a_burst() {
    let (sink, _, entered, go) = stalled();
    (0..4000).for_each(|number| sink.push(&numbered(number)));
    entered.recv_timeout(LONG).unwrap();
    drop(go);
    assert!(sink.flush(LONG));
    let state = sink.shared.lock();
    assert!(state.queue.is_empty() && state.spare.capacity() <= CHUNK);
}

#[test]
fn a_line_beyond_the_bound_passes_whole() {
    let (sink, captured) = Captured::sink(Format::Json);
    let line = format!("\"{}\"\n", "x".repeat(2 * BOUND));
    sink.push(b"1\n");
    sink.push(line.as_bytes());
    assert!(captured.text(&sink) == format!("1\n{line}"));
    assert_eq!(sink.dropped(), 0);
}

#[test]
fn a_closed_stdout_harms_nobody() {
    let (reader, writer) = io::pipe().unwrap();
    let sink = Sink::start(writer, Format::Json).unwrap();
    drop(reader);
    sink.push(b"1\n");
    assert!(sink.flush(LONG));
    (0..10).for_each(|_| sink.push(b"2\n"));
    assert_eq!(sink.dropped(), 10);
    assert!(sink.flush(Duration::ZERO));
}

/// Takes a few bytes at a time, and has every passing trouble in between.
struct Troubled(Captured, usize);

impl Write for Troubled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 += 1;
        match self.1 {
            1 => Err(ErrorKind::Interrupted.into()),
            2 => Err(ErrorKind::WouldBlock.into()),
            3 => Err(ErrorKind::StorageFull.into()),
            4 => Ok(0),
            _ => self.0.write(&bytes[..bytes.len().min(3)]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_are_never_torn() {
    let captured = Captured::default();
    let sink = Sink::start(Troubled(captured.clone(), 0), Format::Json).unwrap();
    (0..100).for_each(|number| sink.push(&numbered(number)));
    let numbers: Vec<_> = captured.json(&sink).iter().map(|line| line["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn many_threads_share_one_sink() {
    let (sink, captured) = Captured::sink(Format::Json);
    thread::scope(|scope| {
        for thread in 0..4 {
            let sink = sink.clone();
            scope.spawn(move || (0..200).for_each(|number| sink.push(&numbered(thread * 1000 + number))));
        }
    });
    let numbers: Vec<_> = captured.json(&sink).iter().map(|line| line["n"].as_u64().unwrap()).collect();
    for thread in 0..4 {
        let own: Vec<_> = numbers.iter().copied().filter(|number| number / 1000 == thread).collect();
        assert_eq!(own, (thread * 1000..thread * 1000 + 200).collect::<Vec<_>>());
    }
}
