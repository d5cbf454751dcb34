//! Writes HTML. Text that comes from elsewhere can only be added escaped.

/// A growing document.
#[derive(Debug, Default)]
pub(super) struct Html {
    out: String,
    /// The columns of the open table, which name its cells on narrow screens.
    columns: Vec<&'static str>,
    /// The next cell's.
    column: usize,
}

impl Html {
    /// Adds markup of the program.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.out += markup;
        self
    }

    /// Adds text, also as the value of an attribute in double quotes.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.out += "&amp;",
                '<' => self.out += "&lt;",
                '>' => self.out += "&gt;",
                '"' => self.out += "&quot;",
                '\'' => self.out += "&#39;",
                // Control characters, and those that turn the direction of what follows
                '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => self.out.push('\u{fffd}'),
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.out.push('\u{fffd}'),
                other => self.out.push(other),
            }
        }
        self
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: impl Into<f64>) -> &mut Self {
        self.out += &format!("{:.1}", number.into());
        self
    }

    /// Adds a cell of a table.
    pub(super) fn cell(&mut self, text: &str) -> &mut Self {
        self.open_cell().text(text).raw("</td>")
    }

    /// Opens a row.
    pub(super) fn open_row(&mut self) -> &mut Self {
        self.column = 0;
        self.raw("<tr>")
    }

    /// Opens a cell.
    pub(super) fn open_cell(&mut self) -> &mut Self {
        let name = self.columns.get(self.column).copied().unwrap_or_default();
        self.column += 1;
        self.raw("<td data-name=\"").raw(name).raw("\">")
    }

    /// Adds a cell with a word in the color of its meaning.
    pub(super) fn pill_cell(&mut self, mood: Mood, text: &str) -> &mut Self {
        self.open_cell().pill(mood, text).raw("</td>")
    }

    /// Adds a word in the color of its meaning.
    pub(super) fn pill(&mut self, mood: Mood, text: &str) -> &mut Self {
        self.raw(match mood {
            Mood::Good => "<span class=\"pill good\">",
            Mood::Bad => "<span class=\"pill bad\">",
            Mood::Neutral => "<span class=\"pill\">",
        });
        self.text(text).raw("</span>")
    }

    /// Opens a table with these columns.
    pub(super) fn table(&mut self, columns: &[&'static str]) -> &mut Self {
        self.columns = columns.to_vec();
        self.raw("<div class=\"scroll\"><table><thead><tr>");
        for column in columns {
            self.raw("<th>").raw(column).raw("</th>");
        }
        self.raw("</tr></thead><tbody>")
    }

    /// Closes a table.
    pub(super) fn end_table(&mut self) -> &mut Self {
        self.raw("</tbody></table></div>")
    }

    /// Returns the document.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// What a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Neutral,
}

impl Mood {
    /// Good or bad.
    pub(super) fn of(is_good: bool) -> Self {
        if is_good { Mood::Good } else { Mood::Bad }
    }
}
