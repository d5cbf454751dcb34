//! Timeline history files, `<timeline>.history`: the ancestors of a timeline, and where each ended.

use crate::wal_name::{Lsn, TimelineId};
use crate::{Error, ErrorCode, Result};

/// How many characters of a line an error message shows.
const SHOWN_CHARS: usize = 120;

/// One ancestor of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The older timeline.
    pub timeline: TimelineId,
    /// Where the ancestor ended: its WAL counts up to here.
    pub end_lsn: Lsn,
}

/// The past of a timeline, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimelineHistory(pub Vec<HistoryEntry>);

impl TimelineHistory {
    /// Parses a history file. Ignores empty lines and lines that begin with `#`. Returns a format error (029) for other
    /// lines that do not consist of a timeline (decimal), a tab and an LSN. Anything may follow after another tab.
    pub fn parse(text: &str) -> Result<Self> {
        text.split('\n')
            .map(|line| (line, line.trim()))
            .filter(|(_, trimmed)| !trimmed.is_empty() && !trimmed.starts_with('#'))
            .map(|(line, trimmed)| {
                entry(trimmed).ok_or_else(|| {
                    let shown: String = line.chars().take(SHOWN_CHARS).collect();
                    Error::new(ErrorCode::Format, format!("invalid history line format '{shown}'"))
                })
            })
            .collect::<Result<_>>()
            .map(TimelineHistory)
    }

    /// Returns where the history leaves `timeline`; `None` if `timeline` is not an ancestor.
    pub fn end_lsn(&self, timeline: TimelineId) -> Option<Lsn> {
        self.0.iter().find(|entry| entry.timeline == timeline).map(|entry| entry.end_lsn)
    }
}

fn entry(line: &str) -> Option<HistoryEntry> {
    let mut fields = line.split('\t');
    let timeline: u32 = fields.next()?.trim().parse().ok().filter(|&timeline| timeline > 0)?;
    let end_lsn: Lsn = fields.next()?.trim().parse().ok().filter(|lsn: &Lsn| lsn.0 > 0)?;
    Some(HistoryEntry { timeline: TimelineId(timeline), end_lsn })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_a_long_line_shows_its_beginning() {
        let error = TimelineHistory::parse(&"x".repeat(1 << 20)).unwrap_err();
        assert!(error.message.len() < 200, "{}", error.message.len());
    }

    #[test]
    fn history_of_the_server_is_read_with_its_steps_in_order() {
        let text = "1\t0/9000000\tno recovery target specified\n\n2\t1/A0000D8\tat restore point \"x\"\n";
        let history = TimelineHistory::parse(text).unwrap();
        assert_eq!(
            history.0,
            [
                HistoryEntry { timeline: TimelineId(1), end_lsn: Lsn(0x900_0000) },
                HistoryEntry { timeline: TimelineId(2), end_lsn: Lsn(0x1_0A00_00D8) },
            ]
        );
        assert_eq!(history.end_lsn(TimelineId(2)), Some(Lsn(0x1_0A00_00D8)));
        assert_eq!(history.end_lsn(TimelineId(3)), None);
    }

    #[test]
    fn history_comments_and_empty_lines_do_not_count() {
        assert_eq!(TimelineHistory::parse("# a comment\r\n \n").unwrap().0, []);
    }

    #[test]
    fn history_in_another_form_gives_029() {
        for bad in ["1", "1 0/9000000", "x\t0/9000000", "1\t9000000", "0\t0/9000000", "1\t0/0", "-1\t0/1"] {
            let error = TimelineHistory::parse(bad).unwrap_err();
            assert_eq!(
                (error.code, error.message),
                (ErrorCode::Format, format!("invalid history line format '{bad}'"))
            );
        }
    }
}
