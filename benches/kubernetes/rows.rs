//! The table: its rows and columns, what was measured for each, and how it is printed.

use std::{collections::BTreeMap, time::Duration};

use crate::common::median;

/// Between two questions, of which the first that gets its answer ends the measurement.
pub const PAUSE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Switchover,
    Term,
    Crash,
    Restart,
    Gone,
    First,
    Next,
    Memory,
    Threads,
    Cpu,
    Requests,
    Twenty,
    Commit,
}

impl Row {
    const ALL: [Self; 13] = [
        Self::Switchover,
        Self::Term,
        Self::Crash,
        Self::Restart,
        Self::Gone,
        Self::First,
        Self::Next,
        Self::Memory,
        Self::Threads,
        Self::Cpu,
        Self::Requests,
        Self::Twenty,
        Self::Commit,
    ];

    /// The word that asks for it; what it is, with its unit.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Switchover => ("switchover", "planned switchover: longest time without an accepted write, s"),
            Self::Term => ("term", "TERM to the primary's PID 1: the same, s"),
            Self::Crash => ("crash", "postmaster killed: the same, s"),
            Self::Restart => ("restart", "primary's container killed, started again 1.2 s later: the same, s"),
            Self::Gone => ("gone", "primary's container killed, no word from a kubelet: the same, s"),
            Self::First => ("first", "first member, empty volume: start to first write, s"),
            Self::Next => ("next", "next member, empty volume: start to streaming, s"),
            Self::Memory => ("idle", "manager of the leader of three, idle: resident, MiB"),
            Self::Threads => ("idle", "its threads"),
            Self::Cpu => ("idle", "its CPU, % of a core"),
            Self::Requests => ("idle", "API requests of an idle cluster of three, a minute"),
            Self::Twenty => ("twenty", "API requests of an idle cluster of twenty, a minute"),
            Self::Commit => ("commit", "three members, each commit on one standby too: a commit of one client, ms"),
        }
    }
}

/// What is measured, of one column.
pub struct Figures {
    pub column: &'static str,
    pub runs: usize,
    /// Words of the rows that are wanted; none: all.
    words: Vec<String>,
    figures: BTreeMap<Row, Vec<f64>>,
}

impl Figures {
    pub fn new(column: &'static str, runs: usize, words: &[String]) -> Self {
        Self { column, runs, words: words.to_vec(), figures: BTreeMap::new() }
    }

    /// Whether one of these rows was asked for.
    pub fn wanted(&self, rows: &[Row]) -> bool {
        self.words.is_empty() || rows.iter().any(|row| self.words.iter().any(|word| word == row.words().0))
    }

    /// How often these are to be measured.
    pub fn runs_of(&self, rows: &[Row]) -> usize {
        if self.wanted(rows) { self.runs } else { 0 }
    }

    pub fn add(&mut self, row: Row, figure: Duration) {
        self.add_seconds(row, figure.as_secs_f64());
    }

    /// Or in the row's own unit.
    pub fn add_seconds(&mut self, row: Row, figure: f64) {
        println!("{}: {}: {figure:.3}", self.column, row.words().1);
        self.figures.entry(row).or_default().push(figure);
    }

    fn cell(&self, row: Row) -> String {
        let Some(figures) = self.figures.get(&row) else { return "–".into() };
        let digits = if matches!(row, Row::Threads | Row::Requests | Row::Twenty) { 0 } else { 2 };
        let digits = if row == Row::Cpu { 3 } else { digits };
        let (low, high) = figures.iter().fold((f64::MAX, f64::MIN), |(l, h), f| (l.min(*f), h.max(*f)));
        let middle = median(figures);
        if figures.len() == 1 {
            format!("{middle:.digits$}")
        } else {
            format!("**{middle:.digits$}** ({low:.digits$}–{high:.digits$})")
        }
    }
}

/// Is this word one of a row?
pub fn is_row(word: &str) -> bool {
    Row::ALL.iter().any(|row| row.words().0 == word)
}

/// A Markdown table: median (lowest–highest).
pub fn print(columns: &[Figures]) {
    let names: Vec<_> = columns.iter().map(|c| c.column).collect();
    println!("\n| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for row in Row::ALL {
        let cells: Vec<_> = columns.iter().map(|c| c.cell(row)).collect();
        if cells.iter().any(|cell| cell != "–") {
            println!("| {} | {} |", row.words().1, cells.join(" | "));
        }
    }
}
