//! The grammar of `postgresql.conf` (guc-file.l), as far as podgres has to understand it: which line sets what, and which
//! lines include other files. Whether a value makes sense is PostgreSQL's to say.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Deeper than this PostgreSQL does not follow includes either (`CONF_FILE_MAX_DEPTH`, conffiles.h).
const DEEPEST: usize = 10;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Something that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, as far as that is known.
    pub place: Option<Place>,
    /// What.
    pub text: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A file with everything that it includes put in place of the includes: one text that depends on no other file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flat {
    /// The text.
    pub text: String,
    /// Where each of its lines comes from.
    pub places: Vec<Place>,
}

/// One setting in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The setting's name, in lower case.
    pub name: String,
    /// Its value, without quotes.
    pub value: String,
    /// The line of the text, from 1.
    pub line: usize,
}

impl Flat {
    /// Reads `path` and what it includes. None: there is no such file.
    ///
    /// # Errors
    /// A file that cannot be read, with the line that includes it.
    pub fn read(path: &Path) -> Result<Option<Self>, Mistake> {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => {
                let place = Some(Place { file: path.to_path_buf(), line: 1 });
                return Err(Mistake { place, text: format!("cannot read the file: {e}") });
            }
        };
        let mut flat = Self::default();
        flat.append(path, &text, 1)?;
        Ok(Some(flat))
    }

    fn append(&mut self, file: &Path, text: &str, depth: usize) -> Result<(), Mistake> {
        for (index, line) in text.lines().enumerate() {
            let place = Place { file: file.to_path_buf(), line: index + 1 };
            let include = parse_line(line).and_then(|(name, target)| Some((Include::of(&name)?, target)));
            let Some((include, target)) = include else {
                self.push(line, place);
                continue;
            };
            let wrong = |text: String| Mistake { place: Some(place.clone()), text };
            if depth >= DEEPEST {
                return Err(wrong(format!("includes are nested deeper than {DEEPEST}")));
            }
            self.push(&format!("# {}", line.trim()), place.clone());
            let target = file.parent().unwrap_or(Path::new("/")).join(target);
            for path in include.files(&target).map_err(|e| wrong(format!("cannot read {}: {e}", target.display())))? {
                match read_text(&path) {
                    Ok(text) => self.append(&path, &text, depth + 1)?,
                    Err(e) if include == Include::IfExists && e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(wrong(format!("cannot read {}: {e}", path.display()))),
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, line: &str, place: Place) {
        self.text += line;
        self.text.push('\n');
        self.places.push(place);
    }

    /// What it sets, in order: the last entry of a name wins.
    pub fn entries(&self) -> std::vec::IntoIter<Entry> {
        entries(&self.text)
    }

    /// Where a line of the text comes from.
    pub fn place(&self, line: usize) -> Option<&Place> {
        self.places.get(line.checked_sub(1)?)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Include {
    Always,
    IfExists,
    Dir,
}

impl Include {
    fn of(name: &str) -> Option<Self> {
        match name {
            "include" => Some(Self::Always),
            "include_if_exists" => Some(Self::IfExists),
            "include_dir" => Some(Self::Dir),
            _ => None,
        }
    }

    /// Of a directory: what ends in `.conf` and is not hidden, by name as bytes (`GetConfFilesInDir`, conffiles.c).
    fn files(self, target: &Path) -> io::Result<Vec<PathBuf>> {
        if self != Self::Dir {
            return Ok(vec![target.to_path_buf()]);
        }
        let mut paths = fs::read_dir(target)?.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.retain(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".conf") && name.len() > 5 && !name.starts_with('.') && !p.is_dir()
        });
        paths.sort();
        Ok(paths)
    }
}

/// A file as text: a comment in Latin-1 is no reason to refuse it.
///
/// # Errors
/// When it cannot be read.
pub fn read_text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// What a text sets, in order.
pub fn entries(text: &str) -> std::vec::IntoIter<Entry> {
    let entry = |(index, line)| parse_line(line).map(|(name, value)| Entry { name, value, line: index + 1 });
    text.lines().enumerate().filter_map(entry).collect::<Vec<_>>().into_iter()
}

/// The setting of a line with its value. None: a comment, nothing, or no line that PostgreSQL would take.
pub fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '.'))).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = rest.find(|c: char| c.is_whitespace() || c == '#').unwrap_or(rest.len());
            rest[..end].to_string()
        }
    };
    (!value.is_empty() || rest.starts_with('\'')).then(|| (name.to_ascii_lowercase(), value))
}

/// The text up to the closing quote; a quote within is doubled or has a backslash (`DeescapeQuotedString`).
fn unquote(text: &str) -> Option<String> {
    let (mut value, mut rest) = (Vec::new(), text.as_bytes());
    loop {
        let (byte, after) = match rest {
            [b'\'', b'\'', after @ ..] => (b'\'', after),
            [b'\'', ..] => return Some(String::from_utf8_lossy(&value).into_owned()),
            [b'\\', after @ ..] => escaped(after)?,
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        value.push(byte);
        rest = after;
    }
}

/// What follows a backslash stands for a byte: up to three octal digits, or one of these letters.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let digits = text.iter().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
    if digits > 0 {
        let (octal, after) = text.split_at(digits);
        return Some((octal.iter().fold(0_u8, |n, digit| n.wrapping_mul(8).wrapping_add(digit - b'0')), after));
    }
    let (first, after) = text.split_first()?;
    let byte = match first {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        other => *other,
    };
    Some((byte, after))
}

/// A value as a file of settings has it.
pub fn quote(value: &str) -> String {
    // A line break would end the line; the grammar knows it as an escape.
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n").replace('\r', "\\r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, parsed) in [
            ("work_mem = 4MB", Some(("work_mem", "4MB"))),
            ("  Work_Mem 4MB # comment", Some(("work_mem", "4MB"))),
            ("a.b='it''s \\'so\\' # here' # there", Some(("a.b", "it's 'so' # here"))),
            ("x=''", Some(("x", ""))),
            (r"x = '\303\244\501'", Some(("x", "äA"))),
            (r"x = '\157\b\f\7z'", Some(("x", "o\u{8}\u{c}\u{7}z"))),
            ("# work_mem = 4MB", None),
            ("", None),
            ("work_mem", None),
            ("x = 'open", None),
            ("= 5", None),
        ] {
            let parsed = parsed.map(|(n, v)| (n.to_string(), v.to_string()));
            assert_eq!(parse_line(line), parsed, "{line:?}");
        }
    }

    #[test]
    fn what_is_quoted_is_read_as_it_was() {
        for value in ["", "plain", "host=a password='x y'", "back\\slash", "two\nlines"] {
            assert_eq!(parse_line(&format!("x = {}", quote(value))), Some(("x".into(), value.into())));
        }
    }

    #[test]
    fn includes_are_put_in_their_place_and_every_line_knows_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        write("a.conf", "x = 1\ninclude 'b.conf'\ninclude_if_exists = 'none.conf'\ninclude_dir 'd'\ny = 2\n");
        write("b.conf", "b = 1");
        write("d/2.conf", "two = 2\n");
        write("d/1.conf", "one = 1\n");
        write("d/.hidden.conf", "hidden = 1\n");
        write("d/other", "other = 1\n");
        let flat = Flat::read(&dir.path().join("a.conf")).unwrap().unwrap();
        let found: Vec<String> = flat
            .entries()
            .map(|e| {
                let place = flat.place(e.line).unwrap();
                format!("{} {}:{}", e.name, place.file.file_name().unwrap().display(), place.line)
            })
            .collect();
        assert_eq!(found, ["x a.conf:1", "b b.conf:1", "one 1.conf:1", "two 2.conf:1", "y a.conf:5"]);
        write("a.conf", "x = 1\ninclude 'none.conf'\n");
        let mistake = Flat::read(&dir.path().join("a.conf")).unwrap_err().to_string();
        assert!(mistake.contains("a.conf:2: ") && mistake.contains("none.conf"), "{mistake}");
        write("a.conf", "include 'a.conf'\n");
        assert!(Flat::read(&dir.path().join("a.conf")).unwrap_err().to_string().contains("nested"));
        assert_eq!(Flat::read(&dir.path().join("none.conf")), Ok(None));
    }
}
