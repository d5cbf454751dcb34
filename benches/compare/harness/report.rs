//! Rounds of both programs, and the table of results.

use super::cost::Figures;
use super::setting;
use crate::tests::env::Tool;

/// Measures both programs alternately and prints a line of a Markdown table per value.
pub struct Report {
    rounds: usize,
}

impl Report {
    /// Prints the head of the table.
    pub fn begin() -> Self {
        let rounds = setting("RBR_BENCH_ROUNDS", 3);
        assert!(rounds > 0, "RBR_BENCH_ROUNDS is 0");
        println!("| {:<50} | {:<14} | {:^28} | {:^28} | ratio |", "what", "measure", "rbr", "pgBackRest");
        println!("| {:-<50} | {:-<14} | {:-<28} | {:-<28} | ----- |", "", "", "", "");
        Self { rounds }
    }

    /// Measures both programs in every round, starting with the other program each time. Calls `prepare` with the
    /// number of the round first.
    pub fn in_turn(&mut self, what: &str, mut prepare: impl FnMut(usize), mut measure: impl FnMut(Tool) -> Figures) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            prepare(round);
            let order = if round % 2 == 0 { [Tool::Rbr, Tool::PgBackRest] } else { [Tool::PgBackRest, Tool::Rbr] };
            for tool in order {
                let figures = measure(tool);
                if tool == Tool::Rbr { &mut ours } else { &mut theirs }.push(figures);
            }
        }
        for (number, (measure, _)) in ours[0].iter().enumerate() {
            let of = |all: &[Figures]| Spread::of(all.iter().map(|figures| figures[number].1).collect());
            line(what, measure, of(&ours), of(&theirs));
        }
    }
}

/// The middle and the borders of some measurements.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], least: values[0], greatest: values[values.len() - 1] }
    }

    fn text(self) -> String {
        let digits = if self.median < 10.0 { 2 } else { 1 };
        format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.least, self.greatest)
    }
}

fn line(what: &str, measure: &str, ours: Spread, theirs: Spread) {
    // Zero compared with zero, such as a lag of no segments, is a draw
    let ratio = if ours.median == theirs.median { 1.0 } else { ours.median / theirs.median };
    println!("| {what:<50} | {measure:<14} | {:>28} | {:>28} | {ratio:5.2} |", ours.text(), theirs.text());
}
