//! YAML as a tree in which every node knows its line, made of granit-parser's events. A deserializer with as good messages
//! would be a tenth of the whole program, in the memory of every pod.

use granit_parser::{Event, Parser, ScanError, Span, StrInput};

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    /// From 1.
    line: usize,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Deeper than any sensible file of queries, and far from the end of the stack.
const DEEPEST: usize = 16;

/// What is wrong, with its line in front: `3: …`.
pub(super) type Mistake = String;

impl Node {
    /// A mistake at this node.
    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> Mistake {
        format!("{}: {what}", self.line)
    }

    /// A text, a number, a yes or no.
    pub(super) fn text(&self) -> Result<&str, Mistake> {
        match &self.value {
            Value::Scalar(text) => Ok(text),
            _ => Err(self.wrong("a text is wanted here")),
        }
    }

    /// A value of a type that has a form as text; `wanted` says which, for mistakes.
    pub(super) fn parsed<T: std::str::FromStr>(&self, wanted: &str) -> Result<T, Mistake> {
        let text = self.text()?;
        text.parse().map_err(|_| self.wrong(format_args!("{text:?} is not {wanted}")))
    }

    /// The nodes of a list.
    pub(super) fn list(&self) -> Result<&[Node], Mistake> {
        match &self.value {
            Value::List(nodes) => Ok(nodes),
            _ => Err(self.wrong("a list is wanted here")),
        }
    }

    /// Keys and values, of which no key is there twice.
    pub(super) fn map(&self) -> Result<&[(Node, Node)], Mistake> {
        match &self.value {
            Value::Map(pairs) => Ok(pairs),
            _ => Err(self.wrong("a name, a colon and what belongs to it are wanted here")),
        }
    }
}

/// Reads a text; none: there is nothing in it.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Mistake> {
    let mut reader = Reader(Parser::new_from_str(text));
    let mut root = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
            (event, span) => {
                let node = reader.node(event, span, 0)?;
                if root.is_some() {
                    return Err(node.wrong("a second document begins here, and there is to be one"));
                }
                // What is between the marks of a document with nothing in it.
                root = Some(node).filter(|n| n.text() != Ok("~"));
            }
        }
    }
}

struct Reader<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Mistake> {
        let wrong = |e: ScanError| format!("{}: {}", e.marker().line(), e.info());
        loop {
            match self.0.next().unwrap_or(Ok((Event::StreamEnd, Span::default()))).map_err(wrong)? {
                (Event::Comment(..), _) => {}
                other => return Ok(other),
            }
        }
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Mistake> {
        let mut node = Node { line: span.start.line(), value: Value::List(Vec::new()) };
        if depth > DEEPEST {
            return Err(node.wrong("this is nested too deep"));
        }
        node.value = match event {
            Event::Scalar(text, ..) => Value::Scalar(text.into_owned()),
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.pairs(depth)?),
            Event::Alias(_) => return Err(node.wrong("aliases are not understood here: write it out")),
            _ => return Err(node.wrong("something is missing here")),
        };
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Mistake> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(nodes),
                (event, span) => nodes.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn pairs(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, Mistake> {
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(pairs);
            }
            let key = self.node(event, span, depth + 1)?;
            let name = key.text()?;
            if pairs.iter().any(|(k, _)| k.text() == Ok(name)) {
                return Err(key.wrong(format_args!("{name:?} is there twice")));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            pairs.push((key, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_line() {
        let root = parse("# x\na:\n  - 1\n  - {b: c}\n").unwrap().unwrap();
        let (key, list) = &root.map().unwrap()[0];
        let [one, map] = list.list().unwrap() else { panic!("two") };
        assert_eq!((key.line, one.line, map.line), (2, 3, 4));
        assert_eq!((one.parsed::<u32>("a number"), map.map().unwrap()[0].1.text()), (Ok(1), Ok("c")));
        for nothing in ["", "# nothing\n", "# nothing\n---\n"] {
            let parsed = parse(nothing).unwrap();
            assert!(parsed.is_none(), "{nothing:?}: {parsed:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_with_its_line() {
        for (text, line) in [
            ("a: [", "1: "),
            ("a: 1\na: 2\n", "2: "),
            ("a: &x 1\nb: *x\n", "2: "),
            ("a: 1\n---\nb: 2\n", "3: "),
            (&"[".repeat(100), "1: "),
            ("a: {b: c}\n\tb: x\n", ""),
        ] {
            let mistake = parse(text).map(drop).unwrap_err();
            assert!(mistake.starts_with(line), "{text}: {mistake}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = parse(&text);
            let _ = parse(&text.replace(',', "\n"));
        }
    }
}
