//! Changes to the text of info files and manifests that are likely to be accepted.

/// Pseudo-random numbers, the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Consecutive seeds must not yield similar sequences
        let mut random = Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..4 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end.max(1)
    }

    /// One of `values`.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }
}

/// Numbers at which programs fail.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "255",
    "8191",
    "8192",
    "8193",
    "65536",
    "1048576",
    "1073741824",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "1099511627776",
    "4503599627370496",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "-9223372036854775808",
    "340282366920938463463374607431768211456",
    "1e300",
    "0.5",
];

/// Texts at which programs fail, as JSON.
fn texts(random: &mut Random, outside: &str) -> String {
    let long = format!("\"{}\"", "a".repeat(1 + random.below(70_000)));
    let fixed = [
        "\"\"",
        "\".\"",
        "\"..\"",
        "\"/\"",
        "\"../../../outside\"",
        "\"20200101-000000F\"",
        "\"20261122-132617F\"",
        "\"20261122-132642F\"",
        "\"da39a3ee5e6b4b0d3255bfef95601890afd80709\"",
        "\"0\"",
        "\"full\"",
        "\"incr\"",
        "\"zst\"",
        "\"none\"",
        "\"xz\"",
        "\"0777\"",
        "\"7777\"",
        "\"a\\u0000b\"",
        "\"a\\nb=1\"",
        "\"\\ud800\"",
        "\"é\u{1F600}\"",
        "\"root\"",
        "\"FFFFFFFFFFFFFFFFFFFFFFFF\"",
        "\"000000010000000000000000\"",
        "\"18\"",
        "null",
        "true",
        "false",
        "[]",
        "{}",
        "[[0,4294967295]]",
        "[[4294967295,0],1,1]",
    ];
    match random.below(fixed.len() + 2) {
        0 => long,
        1 => format!("\"{outside}\""),
        index => fixed[index - 2].to_owned(),
    }
}

/// Members that could be added to the value of a file.
const MEMBERS: &[&str] = &[
    "\"bi\":1",
    "\"bi\":4096,\"bic\":16",
    "\"bi\":524287,\"bim\":100",
    "\"bi\":1,\"bic\":255",
    "\"bim\":1073741824",
    "\"bni\":1",
    "\"bni\":18446744073709551615",
    "\"bno\":18446744073709551615",
    "\"checksum-page\":false,\"checksum-page-error\":[[0,4294967295]]",
    "\"reference\":\"20261122-132617F\"",
    "\"repo-size\":1",
    "\"repo-size\":9223372036854775807",
    "\"szo\":1",
    "\"rck\":\"da39a3ee5e6b4b0d3255bfef95601890afd80709\"",
    "\"backup-reference\":[\"20261122-132617F\",\"20261122-132617F\"]",
    "\"backup-prior\":\"20261122-132617F_20261122-132619I\"",
];

/// Whole lines with the sections that they belong to.
fn lines(outside: &str) -> Vec<String> {
    let file = "{\"size\":0,\"timestamp\":1}";
    vec![
        format!("[target:link]\npg_data/base={{\"destination\":\"{outside}\"}}"),
        format!("[target:link]\npg_data/extra.conf={{\"destination\":\"{outside}/file\"}}"),
        format!("[target:link]\npg_data/pg_tblspc/1={{\"destination\":\"{outside}\"}}"),
        format!(
            "[backup:target]\npg_tblspc/1={{\"path\":\"{outside}\",\"tablespace-id\":\"1\",\"tablespace-name\":\"t\",\"type\":\"link\"}}"
        ),
        format!("[backup:target]\npg_data/base={{\"path\":\"{outside}\",\"type\":\"link\"}}"),
        format!("[backup:target]\npg_data/x={{\"file\":\"../file\",\"path\":\"{outside}\",\"type\":\"link\"}}"),
        format!("[target:path]\npg_data/../outside={{}}"),
        format!("[target:path]\npg_tblspc/1/../../outside={{}}"),
        format!("[target:file]\npg_data/../outside/file={file}"),
        format!("[target:file]\n/outside={file}"),
        format!("[target:file]\npg_data/base/../../outside={file}"),
        format!("[target:file]\npg_tblspc/1/file={file}"),
        format!("[target:file]\npg_data/base={file}"),
        format!("[target:file]\npg_data/missing/file={file}"),
        format!("[target:file]\npg_data/postmaster.pid={file}"),
        format!("[target:file]\npg_data/backup.manifest={file}"),
        format!("[target:file]\npg_data/recovery.signal={file}"),
        format!("[target:file]\npg_data/pg_wal/000000010000000000000001={file}"),
        format!("[target:file]\npg_data/{}={file}", "x".repeat(300)),
        format!("[target:file]\npg_data/{}={file}", "x/".repeat(3000)),
        format!("[target:path]\npg_data/{}={{}}", "x/".repeat(3000)),
        "[db]\na={\"db-id\":5,\"db-last-system-id\":4294967295}".to_owned(),
        "[metadata]\nannotation={\"a\":\"b\"}".to_owned(),
        "[unknown]\na=1".to_owned(),
    ]
}

/// Returns the ranges of the numbers in a value that are not part of texts.
fn numbers(value: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let (mut in_text, mut start) = (false, None);
    for (at, byte) in value.bytes().chain(std::iter::once(b' ')).enumerate() {
        in_text ^= byte == b'"';
        match (byte.is_ascii_digit() && !in_text, start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                found.push(begin..at);
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// The ranges of the texts in a value, quotes included.
fn strings(value: &str) -> Vec<std::ops::Range<usize>> {
    let quotes: Vec<usize> = value.match_indices('"').map(|(at, _)| at).collect();
    quotes.chunks_exact(2).map(|pair| pair[0]..pair[1] + 1).collect()
}

fn replaced(text: &str, range: std::ops::Range<usize>, by: &str) -> String {
    format!("{}{by}{}", &text[..range.start], &text[range.end..])
}

fn other_number(random: &mut Random, old: &str) -> String {
    let Ok(old) = old.parse::<u128>() else { return (*random.pick(NUMBERS)).to_owned() };
    match random.below(6) {
        0 => (old + 1).to_string(),
        1 => old.saturating_sub(1).to_string(),
        2 => (old * 2).to_string(),
        _ => (*random.pick(NUMBERS)).to_owned(),
    }
}

/// Replaces a `key=value` line by none or more lines.
fn change_line(random: &mut Random, line: &str, others: &[&str], outside: &str) -> Vec<String> {
    let (key, value) = super::split(line).unwrap_or((line, ""));
    let with = |value: String| vec![format!("{key}={value}")];
    match random.below(12) {
        0 | 1 => match numbers(value) {
            found if found.is_empty() => with((*random.pick(NUMBERS)).to_owned()),
            found => {
                let range = random.pick(&found).clone();
                let number = other_number(random, &value[range.clone()]);
                with(replaced(value, range, &number))
            }
        },
        2 | 3 => match strings(value) {
            found if found.is_empty() => with(texts(random, outside)),
            found => {
                let range = random.pick(&found).clone();
                let text = texts(random, outside);
                with(replaced(value, range, &text))
            }
        },
        4 => vec![],
        5 => vec![line.to_owned(), line.to_owned()],
        6 => {
            let name = random.pick(&["/../x", "/.", "/", "//x", "/x", ".copy", "\u{1}", "\u{e9}", "=", " "]);
            vec![format!("{key}{name}={value}")]
        }
        // The value of another line
        7 | 8 => match super::split(random.pick::<&str>(others)) {
            Some((_, other)) => with(other.to_owned()),
            None => vec![line.to_owned()],
        },
        // Another member in an object at any position, because members are expected in order
        9 => match value.match_indices(['{', ',']).map(|(at, _)| at + 1).collect::<Vec<_>>() {
            places if places.is_empty() => with(texts(random, outside)),
            places => {
                let at = *random.pick(&places);
                let member = random.pick(MEMBERS);
                let comma = if value[at..].starts_with('}') { "" } else { "," };
                with(replaced(value, at..at, &format!("{member}{comma}")))
            }
        },
        // One member less
        10 => match value.match_indices(",\"").map(|(at, _)| at).collect::<Vec<_>>() {
            places if places.is_empty() => vec![],
            places => {
                let at = *random.pick(&places);
                let end = value[at + 1..].find([',', '}']).map_or(value.len(), |end| at + 1 + end);
                with(replaced(value, at..end, ""))
            }
        },
        // Many similar lines
        _ => (0..1 + random.below(300)).map(|index| format!("{key}{index}={value}")).collect(),
    }
}

/// Changes a text in one to three places. `outside` is a path that nothing may write to.
pub fn mutate(random: &mut Random, text: &str, outside: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..1 + random.below(3) {
        let lines_now: Vec<&str> = text.lines().collect();
        let values: Vec<usize> = (0..lines_now.len())
            .filter(|&at| lines_now[at].contains('=') && !lines_now[at].starts_with("backrest-checksum="))
            .collect();
        if values.is_empty() {
            break;
        }
        let mut changed: Vec<String> = lines_now.iter().map(|line| (*line).to_owned()).collect();
        if random.below(5) == 0 {
            let line = random.pick(&lines(outside)).clone();
            let (section, entry) = line.split_once('\n').expect("section and entry");
            match lines_now.iter().position(|line| *line == section) {
                // Anywhere in its section, which ends at the end of the file or at an empty line
                Some(at) => {
                    let size = lines_now[at..].iter().position(|line| line.is_empty()).unwrap_or(1);
                    changed.insert(at + 1 + random.below(size), entry.to_owned());
                }
                None => {
                    let at = lines_now.iter().rposition(|line| *line == "[backrest]").unwrap_or(0);
                    changed.splice(at..at, [section.to_owned(), entry.to_owned(), String::new()]);
                }
            }
        } else {
            let at = *random.pick(&values);
            let others: Vec<&str> = values.iter().map(|&at| lines_now[at]).collect();
            changed.splice(at..=at, change_line(random, lines_now[at], &others, outside));
        }
        text = changed.join("\n") + "\n";
    }
    text
}
