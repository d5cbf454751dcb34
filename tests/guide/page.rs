//! The blocks of a page of the guide.

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    pub kind: Kind,
    pub text: String,
}

/// What the fence says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `sh`: commands that are run.
    Commands,
    /// `text`: what the commands before it print.
    Output,
    /// `ini`: the content of a file, which its first line names in a comment.
    File,
    /// `console` and others: only shown.
    Shown,
}

/// Returns the blocks of a page, and the words of its comments `<!-- test: ... -->`, which name the servers that the
/// page needs.
pub fn parse(page: &str) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut needs, mut open) = (Vec::new(), Vec::new(), None::<Block>);
    for (index, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let kind = match language {
                    "sh" => Kind::Commands,
                    "text" => Kind::Output,
                    "ini" => Kind::File,
                    _ => Kind::Shown,
                };
                open = Some(Block { line: index + 1, kind, text: String::new() });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {
                let words = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
                needs.extend(words.into_iter().flat_map(str::split_whitespace).map(str::to_owned));
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    (blocks, needs)
}

/// Compares an output with the one that the page shows. Numbers may differ in value and length, since they are times,
/// sizes and labels. A line `...` of the page stands for any lines.
pub fn matches(shown: &str, output: &str) -> bool {
    let (shown, output): (Vec<_>, Vec<_>) = (normal(shown), normal(output));
    let mut rest = &output[..];
    for (at, part) in shown.split(|line| line == "...").enumerate() {
        let place = match at {
            0 => rest.starts_with(part).then_some(0),
            _ if part.is_empty() => Some(rest.len()),
            _ => rest.windows(part.len()).position(|lines| lines == part),
        };
        let Some(place) = place else { return false };
        rest = &rest[place + part.len()..];
    }
    rest.is_empty()
}

/// The lines that are not empty, with one `0` for each number.
fn normal(text: &str) -> Vec<String> {
    let numbers = regex_lite::Regex::new(r"[0-9]+(\.[0-9]+)?").expect("valid pattern");
    let spaces = regex_lite::Regex::new(r" +").expect("valid pattern");
    text.lines()
        .map(|line| spaces.replace_all(&numbers.replace_all(line.trim(), "0"), " ").into_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn output_that_differs_in_words_does_not_match() {
    assert!(matches("status: ok\nsize 12.5MB\n", "\nstatus: ok\n size 7MB"));
    assert!(matches("a\n...\nz\n", "a\nb\nc\nz\n") && matches("a\n...\n", "a\nb\n") && matches("...\nb\n", "a\nb\n"));
    assert!(
        !matches("status: ok\n", "status: error\n") && !matches("a\n", "a\nb\n") && !matches("a\n...\nz\n", "a\nb\n")
    );
}

#[test]
fn blocks_have_kinds_and_lines() {
    let (blocks, needs) = parse("<!-- test: cluster s3 -->\n```sh\nls\n```\n```console\nx\n```\n");
    let found: Vec<_> = blocks.iter().map(|block| (block.line, block.kind, block.text.as_str())).collect();
    assert_eq!(found, [(2, Kind::Commands, "ls\n"), (5, Kind::Shown, "x\n")]);
    assert_eq!(needs, ["cluster", "s3"]);
}
