//! The grammar of `pg_hba.conf` and `pg_ident.conf` (`next_token`, hba.c), as far as files are named in it.

use std::path::Path;

/// Directives, from 16 on: alone in a line with the name of a file.
const INCLUDES: [&str; 3] = ["include", "include_if_exists", "include_dir"];

const BLANKS: [char; 3] = [' ', '\t', '\r'];

/// A word, in quotes or not.
#[derive(Default)]
struct Token {
    start: usize,
    end: usize,
    /// Without quotes, and without the ends of lines that go on in the next.
    text: String,
    begins_with_quote: bool,
    has_quotes: bool,
    /// The last one was a quote within quotes: the end, or the first half of one that is meant.
    was_quote: bool,
    /// What follows belongs to the same list.
    comma: bool,
}

/// The same text with the files named as seen from anywhere: `@names` and `include names` mean a file beside the one they are
/// in, which was in `dir`. Every line stays where it is, and nothing else is changed.
pub(super) fn anchored(text: &str, dir: &Path) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let (tokens, end) = line(rest);
        let mut copied = 0;
        for (index, token) in tokens.iter().enumerate() {
            let Some(name) = named(&tokens, index).filter(|name| !Path::new(name).is_absolute()) else { continue };
            out += &rest[copied..token.start];
            out += if token.is_list() { "@" } else { "" };
            out += &quoted(&dir.join(name).to_string_lossy());
            // A name that was written in two lines.
            out += &"\\\n".repeat(rest[token.start..token.end].matches('\n').count());
            copied = token.end;
        }
        out += &rest[copied..end];
        rest = &rest[end..];
    }
    out
}

/// The file that a token of a line names.
fn named(tokens: &[Token], index: usize) -> Option<&str> {
    let token = tokens.get(index)?;
    match tokens {
        _ if token.is_list() => Some(&token.text[1..]),
        [first, second] if index == 1 && !first.comma && INCLUDES.contains(&&*first.text) => Some(&second.text),
        _ => None,
    }
}

impl Token {
    /// `@name`: what is in that file is read instead.
    fn is_list(&self) -> bool {
        !self.begins_with_quote && self.text.len() > 1 && self.text.starts_with('@')
    }
}

fn quoted(name: &str) -> String {
    // Without quotes a backslash at its end might join the next line to it.
    match name.contains(BLANKS) || name.contains([',', '#', '"']) || name.ends_with('\\') {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.into(),
    }
}

/// The tokens of the first line of `text`, and where the next line begins. A backslash at its end joins the next one to it
/// (from 14 on). Not in a comment: whatever 14 takes for one may be a rule to 13, and does no harm in a comment.
fn line(text: &str) -> (Vec<Token>, usize) {
    let (mut tokens, mut token) = (Vec::new(), None::<Token>);
    let (mut inside, mut comment) = (false, false);
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let next = at + c.len_utf8();
        let over = text[next..].trim_start_matches('\r');
        let joined = over.strip_prefix('\n');
        match c {
            '\n' => {
                tokens.extend(ended(token, at, false));
                return (tokens, next);
            }
            _ if comment => {}
            '\\' if joined.is_some() => {
                at = text.len() - joined.map_or(0, str::len);
                continue;
            }
            '\r' if joined.is_some() || over.is_empty() => {}
            // Where the file ends there is nothing to join, and it is in no name.
            '\\' if over.is_empty() => break,
            ',' if !inside => tokens.extend(ended(token.take(), at, true)),
            '#' if !inside => {
                tokens.extend(ended(token.take(), at, false));
                comment = true;
            }
            blank if !inside && BLANKS.contains(&blank) => tokens.extend(ended(token.take(), at, false)),
            c => {
                let token = token.get_or_insert_with(|| Token { start: at, ..Token::default() });
                if c != '"' || token.was_quote {
                    token.text.push(c);
                }
                token.was_quote = inside && c == '"' && !token.was_quote;
                if c == '"' {
                    inside = !inside;
                    token.has_quotes = true;
                    token.begins_with_quote |= token.text.is_empty();
                }
            }
        }
        at = next;
    }
    tokens.extend(ended(token, at, false));
    (tokens, text.len())
}

fn ended(token: Option<Token>, end: usize, comma: bool) -> Option<Token> {
    token.filter(|t| t.has_quotes || !t.text.is_empty()).map(|token| Token { end, comma, ..token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_absolute() {
        for (line, expected) in [
            ("local all @admins trust", "local all @/d/admins trust"),
            ("local a,@dbs all trust", "local a,@/d/dbs all trust"),
            ("local a, @dbs,b all trust", "local a, @/d/dbs,b all trust"),
            ("host all me@there 0.0.0.0/0 trust", "host all me@there 0.0.0.0/0 trust"),
            ("include more.conf # x", "include /d/more.conf # x"),
            ("include_dir \"/abs\"", "include_dir \"/abs\""),
            ("include \"a #b\"", "include \"/d/a #b\""),
            ("include a b", "include a b"),
            ("# see @admins", "# see @admins"),
        ] {
            assert_eq!(anchored(line, Path::new("/d")), expected);
        }
    }

    #[test]
    fn a_rule_with_quotes_says_what_it_said() {
        for (line, expected) in [
            // Not the name of a file: it is within quotes.
            ("local \"my @db\" all trust", "local \"my @db\" all trust"),
            ("local \"@db\" all trust", "local \"@db\" all trust"),
            ("local all @\"/abs/users\" trust", "local all @\"/abs/users\" trust"),
            ("local all @\"my users\" trust", "local all @\"/d/my users\" trust"),
            ("local all @\"a\"\"b\" trust", "local all @\"/d/a\"\"b\" trust"),
            ("local \"a\" \"@b\" trust", "local \"a\" \"@b\" trust"),
        ] {
            assert_eq!(anchored(line, Path::new("/d")), expected);
        }
    }

    #[test]
    fn a_line_that_goes_on_in_the_next_is_one() {
        for (line, expected) in [
            ("include \\\nmore.conf\n", "include \\\n/d/more.conf\n"),
            ("local \"a \\\n@b\" all trust\r\nx", "local \"a \\\n@b\" all trust\r\nx"),
            ("local all @ad\\\r\nmins trust", "local all @/d/admins\\\n trust"),
            ("local all @x\\\\", "local all @\"/d/x\\\"\\"),
            ("include \\\"\"\nx", "include \"/d/\\\"\nx"),
            ("# \\\nlocal @x all trust", "# \\\nlocal @/d/x all trust"),
        ] {
            assert_eq!(anchored(line, Path::new("/d")), expected);
        }
    }
}
