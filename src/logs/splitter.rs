//! Bytes as they come → lines.

use memchr::memchr;

/// The longest line that is kept whole. PostgreSQL's own limit is 1 GB (MaxAllocSize), which no small container has.
/// Where it is to be reached with any input, it is small.
pub(crate) const MAX_LINE: usize = if cfg!(feature = "fuzzing") { 4 << 10 } else { 16 << 20 };

/// Room that is kept between lines.
const IDLE: usize = 8 << 10;

/// Cuts a stream of bytes into lines. Holds the last, incomplete line; of one that is longer than [`MAX_LINE`] the
/// beginning.
#[derive(Default)]
pub(crate) struct Splitter {
    line: Vec<u8>,
    cut: u64,
}

impl Splitter {
    /// Calls `each` for every line that is complete with `bytes`: the line without its newline, and how many bytes
    /// were cut off its end.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8], u64)) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.line.is_empty() {
                each(&bytes[..end], 0);
            } else {
                self.keep(&bytes[..end]);
                self.finish(&mut each);
            }
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// Calls `each` with the last line if it has no newline.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&[u8], u64)) {
        if !self.line.is_empty() {
            each(&self.line, self.cut);
            self.line.clear();
            self.line.shrink_to(IDLE);
            self.cut = 0;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let (kept, cut) = bytes.split_at(bytes.len().min(MAX_LINE - self.line.len()));
        self.line.extend_from_slice(kept);
        self.cut += cut.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, u64)> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for piece in pieces {
            splitter.feed(piece, |line, cut| lines.push((line.to_vec(), cut)));
        }
        splitter.finish(|line, cut| lines.push((line.to_vec(), cut)));
        lines
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
                                size in 1..20_usize) {
            let mut expected: Vec<_> = bytes.split(|&byte| byte == b'\n').map(|line| (line.to_vec(), 0)).collect();
            // What follows the last newline is a line only if there is something.
            expected.pop_if(|(line, _)| line.is_empty());
            prop_assert_eq!(split(bytes.chunks(size)), expected);
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_cut_and_the_next_is_whole() {
        let long = vec![b'x'; MAX_LINE + 5];
        let lines = split([&long[..], b"yz\nnext\n"]);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].0.len(), lines[0].1), (MAX_LINE, 7));
        assert_eq!(lines[1], (b"next".to_vec(), 0));
    }

    #[test]
    fn memory_shrinks_after_a_long_line() {
        let mut splitter = Splitter::default();
        splitter.feed(&vec![b'x'; 1 << 20], |_, _| ());
        splitter.feed(b"\n", |line, _| assert_eq!(line.len(), 1 << 20));
        assert!(splitter.line.capacity() <= IDLE);
    }
}
