//! Tables and lines for people: aligned, and in colour where somebody looks.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

/// What is wrong.
pub(super) const WRONG: Style = AnsiColor::Red.on_default();
/// What is on its way, or waits for somebody.
pub(super) const WAITING: Style = AnsiColor::Yellow.on_default();
/// What is there for orientation.
pub(super) const DIM: Style = Style::new().dimmed();
/// Everything else.
pub(super) const PLAIN: Style = Style::new();

/// Whether to use colour: only on a terminal that knows it, and not for those who do not want it
/// (<https://no-color.org/>).
pub(super) fn colour_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|v| v == "dumb");
    std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

/// A text with its style.
pub(super) type Cell = (String, Style);

/// The text, in its style if there is `colour`.
pub(super) fn paint(text: &str, style: Style, colour: bool) -> String {
    if colour && style != PLAIN { format!("{style}{text}{style:#}") } else { text.into() }
}

/// Rows below dim headings.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: Vec<[Cell; N]>, colour: bool) -> String {
    let rows: Vec<[Cell; N]> = std::iter::once(headings.map(|h| (h.into(), DIM))).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|r| r[column].0.chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut gap = 0;
        for ((cell, style), width) in row.iter().zip(widths) {
            text.extend(std::iter::repeat_n(' ', gap));
            text += &paint(cell, *style, colour);
            gap = width - cell.chars().count() + 2;
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_and_colour_changes_no_width() {
        let rows = || vec![[("ü…".into(), WRONG), ("1".into(), PLAIN)], [("long".into(), PLAIN), ("2".into(), PLAIN)]];
        assert_eq!(table(["A", "B"], rows(), false), "A     B\nü…    1\nlong  2\n");
        let coloured = "\u{1b}[2mA\u{1b}[0m     \u{1b}[2mB\u{1b}[0m\n\u{1b}[31mü…\u{1b}[0m    1\nlong  2\n";
        assert_eq!(table(["A", "B"], rows(), true), coloured);
    }
}
