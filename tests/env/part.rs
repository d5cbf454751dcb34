//! Runs of a long matrix, of which a run may take a part.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The setting that selects a part: `2/5` is the second of five.
const PART: &str = "RBR_MATRIX";

/// A part of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// From 0.
    index: usize,
    count: usize,
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        let (part, count) = text.split_once('/')?;
        let (part, count) = (part.parse::<usize>().ok()?, count.parse().ok()?);
        (1..=count).contains(&part).then(|| Self { index: part - 1, count })
    }

    /// The whole matrix, unless the setting says otherwise.
    fn of_environment() -> Self {
        match std::env::var(PART) {
            Ok(text) => Self::parse(&text).unwrap_or_else(|| panic!("{PART}={text}: expected a part as 2/5")),
            Err(_) => Self { index: 0, count: 1 },
        }
    }
}

/// Runs the cases whose number belongs to the part of the matrix that is to be run, also after a case has failed.
///
/// # Panics
/// If a case failed, with the list of all that failed.
pub fn run_part<C: Copy + Debug>(cases: impl IntoIterator<Item = (usize, C)>, run: impl Fn(C)) {
    let part = Part::of_environment();
    let chosen = cases.into_iter().filter(|(number, _)| number % part.count == part.index);
    let (mut failed, mut count) = (Vec::new(), 0);
    for (_, case) in chosen {
        count += 1;
        println!("{case:?}");
        if catch_unwind(AssertUnwindSafe(|| run(case))).is_err() {
            println!("FAILED: {case:?}");
            failed.push(case);
        }
    }
    assert!(failed.is_empty(), "{} of {count} cases failed: {failed:#?}", failed.len());
}

#[test]
fn part_of_a_matrix_is_read_from_text() {
    assert_eq!(Part::parse("2/5"), Some(Part { index: 1, count: 5 }));
    for wrong in ["", "2", "0/5", "6/5", "1/0", "a/b"] {
        assert_eq!(Part::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn cases_after_a_failed_one_run_too() {
    let ran = std::cell::RefCell::new(Vec::new());
    let result = catch_unwind(AssertUnwindSafe(|| {
        run_part([(0, 'a'), (0, 'b'), (0, 'c')], |case| {
            ran.borrow_mut().push(case);
            assert!(case != 'b', "expected by the test");
        });
    }));
    if Part::of_environment().index == 0 {
        assert!(result.is_err());
        assert_eq!(*ran.borrow(), ['a', 'b', 'c']);
    }
}
