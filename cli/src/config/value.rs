//! Parses numbers with units and paths.

/// Parses a decimal number with an optional sign, like C's `strtoll` of the whole text (without leading blanks).
pub fn parse_integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Parses a number of bytes: digits and an optional unit, always powers of 1024 (`k`, `kb` and `kib` are the same).
/// Returns `None` if the text is not such a number or does not fit.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().ok()?;
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    number.checked_mul(1 << shift)?.try_into().ok()
}

/// Parses a time span: a number and an optional unit (`ms s m h d w`; the default is seconds). The result is in
/// milliseconds. Returns `None` if the text is not such a span or does not fit.
pub fn parse_time(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let (number, factor) = if let Some(number) = lower.strip_suffix("ms") {
        (number, 1)
    } else if let Some(number) = lower.strip_suffix('s') {
        (number, 1000)
    } else if let Some(number) = lower.strip_suffix('m') {
        (number, 60 * 1000)
    } else if let Some(number) = lower.strip_suffix('h') {
        (number, 60 * 60 * 1000)
    } else if let Some(number) = lower.strip_suffix('d') {
        (number, 24 * 60 * 60 * 1000)
    } else if let Some(number) = lower.strip_suffix('w') {
        (number, 7 * 24 * 60 * 60 * 1000)
    } else {
        (lower.as_str(), 1000)
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

/// Formats milliseconds as seconds with at most three decimals, the form of adjusted time options.
pub fn format_time(milliseconds: i64) -> String {
    let text = format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_with_each_unit_is_a_power_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("7b", 7),
            ("2k", 2048),
            ("2KB", 2048),
            ("2kiB", 2048),
            ("1m", 1 << 20),
            ("1GiB", 1 << 30),
            ("1tb", 1 << 40),
            ("4PiB", 4 << 50),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "k", "1.5k", "-1", "1 k", "1x", "1ib", "9999999PiB", "99999999999999999999"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn time_with_each_unit_is_in_milliseconds() {
        for (text, time) in
            [("1", 1000), ("5ms", 5), ("2s", 2000), ("3M", 180_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_time(text), Some(time), "{text}");
        }
        assert_eq!(parse_time("1w"), Some(604_800_000));
        for text in ["", "s", "ms", "1.5", "1x", "9999999999999999999w"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn time_is_formatted_without_needless_zeroes() {
        assert_eq!(format_time(1_830_000), "1830");
        assert_eq!(format_time(2_500), "2.5");
        assert_eq!(format_time(7), "0.007");
    }
}
