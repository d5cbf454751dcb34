//! The local time zone, as the C library finds it: the variable `TZ`, else `/etc/localtime`.
//!
//! Read from its file directly: looking names up in the whole time zone database takes longer than all else that a short
//! command does.

use std::sync::OnceLock;

use jiff::tz::TimeZone;

/// Where named zones are.
const DATABASE: &str = "/usr/share/zoneinfo";
/// The zone of the system.
const SYSTEM: &str = "/etc/localtime";
/// More than any zone file needs.
const SIZE_MAX: u64 = 1024 * 1024;

/// The local time zone; UTC where it can't be found.
pub fn local() -> &'static TimeZone {
    static LOCAL: OnceLock<TimeZone> = OnceLock::new();
    LOCAL.get_or_init(|| find(std::env::var("TZ").ok().as_deref()).unwrap_or(TimeZone::UTC))
}

/// The zone for a value of `TZ`: a name, a path, a rule such as `CET-1CEST`; a colon before it changes nothing.
fn find(variable: Option<&str>) -> Option<TimeZone> {
    match variable.map(|text| text.strip_prefix(':').unwrap_or(text)) {
        None => read(SYSTEM),
        Some("") => None,
        Some(path) if path.starts_with('/') => read(path),
        Some(name) => {
            let is_name = !name.split('/').any(|part| part == "..");
            read(&format!("{DATABASE}/{name}")).filter(|_| is_name).or_else(|| TimeZone::posix(name).ok())
        }
    }
}

fn read(path: &str) -> Option<TimeZone> {
    use std::io::Read;
    let mut data = Vec::new();
    std::fs::File::open(path).ok()?.take(SIZE_MAX).read_to_end(&mut data).ok()?;
    TimeZone::tzif(path, &data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(variable: &str) -> Option<i32> {
        let summer = jiff::Timestamp::from_second(1_752_000_000).ok()?;
        find(Some(variable)).map(|zone| zone.to_offset(summer).seconds())
    }

    #[test]
    fn rule_is_a_zone() {
        assert_eq!(offset("CET-1CEST,M3.5.0,M10.5.0/3"), Some(7200));
        assert_eq!(offset(":EST5"), Some(-18_000));
    }

    #[test]
    fn what_is_no_zone_is_none() {
        assert_eq!(offset(""), None);
        assert_eq!(offset("/nonexistent"), None);
        assert_eq!(offset("../../../etc/passwd"), None);
    }
}
