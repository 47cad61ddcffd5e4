//! The output of a child process, line by line.

use std::{io, os::fd::OwnedFd};

use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::{
    Sink,
    batch::{Batch, Lines},
    raw::cut_raw,
    splitter::Splitter,
};

/// Read at a time: a quarter of a pipe, as several children may run at once.
const BUFFER: usize = 16 << 10;

/// Reads the reading end of a pipe until every process that holds the writing end has closed it, and logs each line
/// as [`raw`](super::raw()) does. A last line without newline counts; what is beyond 16 MiB of one line is counted in
/// its `truncated_bytes` and lost. Needs a Tokio runtime with I/O. Dropped, it stops reading, and the writers get
/// EPIPE.
pub async fn lines(pipe: OwnedFd, logger: &'static str, sink: Sink) -> io::Result<()> {
    lines_but(pipe, logger, sink, |_| false).await
}

/// [`lines`], without those that `taken` says it has taken.
pub async fn lines_but(
    pipe: OwnedFd,
    logger: &'static str,
    sink: Sink,
    mut taken: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
    let mut buffer = vec![0; BUFFER];
    let mut splitter = Splitter::default();
    let mut batch = Batch::new(sink);
    let end = loop {
        let count = match pipe.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(count) => count,
            Err(error) => break Err(error),
        };
        splitter.feed(&buffer[..count], |line, cut| {
            if !taken(line) {
                batch.add(|format, out| cut_raw(logger, line, cut, format, out));
            }
        });
        batch.flush();
    };
    splitter.finish(|line, cut| {
        if !taken(line) {
            batch.add(|format, out| cut_raw(logger, line, cut, format, out));
        }
    });
    batch.flush();
    end
}

#[cfg(test)]
mod tests {
    use std::{io::Write, thread, time::Duration};

    use super::*;
    use crate::logs::{Format, sink::Captured, splitter::MAX_LINE};

    /// What is logged of what `write` writes into the pipe.
    fn logged(write: impl FnOnce(io::PipeWriter) + Send + 'static) -> Vec<serde_json::Value> {
        let (reader, writer) = io::pipe().unwrap();
        let (sink, captured) = Captured::sink(Format::Json);
        let writing = thread::spawn(move || write(writer));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(lines(reader.into(), "initdb", sink.clone())).unwrap();
        writing.join().unwrap();
        captured.json(&sink)
    }

    #[test]
    fn lines_come_out_whole_until_the_last_writer_is_gone() {
        let long = "ä".repeat(1 << 19);
        let text = format!("creating …\n\nFATAL:  {long}\nno newline");
        let lines = logged(move |mut writer| {
            let mut second = writer.try_clone().unwrap();
            for piece in text.as_bytes().chunks(10_007) {
                writer.write_all(piece).unwrap();
            }
            drop(writer);
            thread::sleep(Duration::from_millis(20));
            second.write_all(b" yet").unwrap();
        });
        let messages: Vec<_> = lines.iter().map(|line| line["msg"].as_str().unwrap()).collect();
        let fatal = format!("FATAL:  {}", "ä".repeat(1 << 19));
        assert!(messages == ["creating …", "", &fatal, "no newline yet"]);
        assert_eq!((&lines[2]["level"], &lines[2]["logger"]), (&"fatal".into(), &"initdb".into()));
    }

    #[test]
    fn a_line_beyond_the_limit_is_cut() {
        let lines = logged(|mut writer| {
            writer.write_all(&vec![b'x'; MAX_LINE + 9]).unwrap();
            writer.write_all(b"\nnext\n").unwrap();
        });
        assert_eq!(lines[0]["truncated_bytes"], 9);
        assert_eq!(lines[0]["msg"].as_str().unwrap().len(), MAX_LINE);
        // The next line may find the sink full.
        assert_eq!(lines.len(), 2);
    }
}
