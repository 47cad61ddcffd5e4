//! One file that grows, and what its bytes mean.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
};

use nix::fcntl::{FallocateFlags, fallocate};

use super::{Kind, Progress};
use crate::logs::{
    batch::{Batch, Lines},
    postgres_csv::CsvLog,
    postgres_json,
    raw::cut_raw,
    splitter::Splitter,
};

/// Read from one file before the other has its turn and a stop is seen, in buffers.
const TURN: usize = 16;

/// How much that is read may still take up space: little against any tmpfs, and one system call for some 3,000 lines.
const FREE: u64 = 1 << 20;

/// Holes are punched in whole pages; of a part of one, nothing would be freed.
const PAGE: u64 = 4096;

/// One of the files that the collector writes.
pub(super) struct Source {
    file: Followed,
    decoder: Decoder,
    failed: bool,
}

/// What bytes of a file mean.
pub(crate) enum Decoder {
    Text(Splitter),
    Json(Splitter),
    Csv(Box<CsvLog>),
}

impl Source {
    /// The structured log.
    pub(super) fn structured(path: PathBuf, kind: Kind) -> Source {
        Source { file: Followed::new(path), decoder: Decoder::structured(kind), failed: false }
    }

    /// What PostgreSQL's children write to stderr (`archive_command`, libraries).
    pub(super) fn text(path: PathBuf) -> Source {
        Source { file: Followed::new(path), decoder: Decoder::text(), failed: false }
    }

    /// Reads what there is, or a turn's worth of it. Logs an error once.
    pub(super) fn read(&mut self, buffer: &mut [u8], batch: &mut Batch) -> Progress {
        for _ in 0..TURN {
            match self.file.next(buffer) {
                Ok(Next::Bytes(count)) => self.decoder.feed(&buffer[..count], batch),
                Ok(Next::Restart) => self.decoder.finish(batch),
                Ok(Next::End) => {
                    self.failed = false;
                    return Progress::Done;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        tracing::error!(path = %self.file.path.display(), %error, "cannot read PostgreSQL's log");
                    }
                    return Progress::Failed;
                }
            }
        }
        Progress::More
    }

    /// Logs the last line if it has no newline.
    pub(super) fn finish(&mut self, batch: &mut Batch) {
        self.decoder.finish(batch);
    }
}

impl Decoder {
    pub(crate) fn structured(kind: Kind) -> Decoder {
        match kind {
            Kind::Json => Decoder::Json(Splitter::default()),
            Kind::Csv => Decoder::Csv(Box::default()),
        }
    }

    pub(crate) fn text() -> Decoder {
        Decoder::Text(Splitter::default())
    }

    pub(crate) fn feed(&mut self, bytes: &[u8], to: &mut impl Lines) {
        match self {
            Decoder::Text(lines) => lines.feed(bytes, |line, cut| text(line, cut, to)),
            Decoder::Json(lines) => lines.feed(bytes, |line, cut| json(line, cut, to)),
            Decoder::Csv(records) => records.feed(bytes, |record| to.add(|format, out| record.write(format, out))),
        }
    }

    pub(crate) fn finish(&mut self, to: &mut impl Lines) {
        match self {
            Decoder::Text(lines) => lines.finish(|line, cut| text(line, cut, to)),
            Decoder::Json(lines) => lines.finish(|line, cut| json(line, cut, to)),
            Decoder::Csv(records) => records.finish(|record| to.add(|format, out| record.write(format, out))),
        }
    }
}

fn text(line: &[u8], cut: u64, to: &mut impl Lines) {
    to.add(|format, out| cut_raw("postgres", line, cut, format, out));
}

fn json(line: &[u8], cut: u64, to: &mut impl Lines) {
    if cut == 0 {
        to.add(|format, out| postgres_json(line, format, out));
    } else {
        text(line, cut, to);
    }
}

/// A path, the file that is or was there, and how far it is read.
struct Followed {
    path: PathBuf,
    open: Option<Open>,
    can_free: bool,
}

struct Open {
    file: File,
    read: u64,
    freed: u64,
}

/// What comes next in a followed file.
enum Next {
    /// So many bytes.
    Bytes(usize),
    /// The file was truncated or replaced: what comes does not continue what was.
    Restart,
    /// Nothing for now.
    End,
}

impl Followed {
    fn new(path: PathBuf) -> Followed {
        Followed { path, open: None, can_free: true }
    }

    fn next(&mut self, buffer: &mut [u8]) -> io::Result<Next> {
        let open = match &mut self.open {
            Some(open) => open,
            // Writable, for the holes.
            None => match OpenOptions::new().read(true).write(true).open(&self.path) {
                Ok(file) => self.open.insert(Open { file, read: 0, freed: 0 }),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Next::End),
                Err(error) => return Err(error),
            },
        };
        let count = open.read(buffer)?;
        if count > 0 {
            if self.can_free {
                self.can_free = open.free();
            }
            return Ok(Next::Bytes(count));
        }
        let mine = open.file.metadata()?;
        let replaced = match fs::metadata(&self.path) {
            Ok(theirs) => (mine.dev(), mine.ino()) != (theirs.dev(), theirs.ino()),
            Err(_) => false,
        };
        if replaced {
            // Between the end of the old file and the look at the new one something may have been written.
            let count = open.read(buffer)?;
            if count > 0 {
                return Ok(Next::Bytes(count));
            }
            self.open = None;
            return Ok(Next::Restart);
        }
        if mine.len() < open.read {
            (open.read, open.freed) = (0, 0);
            return Ok(Next::Restart);
        }
        Ok(Next::End)
    }
}

impl Open {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.read)?;
        self.read += count as u64;
        Ok(count)
    }

    /// Gives the space of what is read back to the file system. False if it cannot do that, which is logged.
    fn free(&mut self) -> bool {
        let end = self.read - self.read % PAGE;
        if end - self.freed < FREE {
            return true;
        }
        let range = (i64::try_from(self.freed), i64::try_from(end - self.freed));
        let (Ok(start), Ok(length)) = range else { return false };
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, mode, start, length) {
            Ok(()) => {
                self.freed = end;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "PostgreSQL's log cannot be shortened: its file system must be able to punch holes");
                false
            }
        }
    }
}
