//! The local time zone, as the C library determines it: the variable `TZ`, otherwise `/etc/localtime`.
//!
//! It is read from its file directly, because looking names up in the whole time zone database takes longer than the
//! rest of a short command. The meaning of the variable follows glibc (`time/tzset.c`, `time/tzfile.c`), because the
//! server on the same host reads it the same way.

mod rule;

use std::sync::OnceLock;

use jiff::tz::TimeZone;

/// The directory of named zones, unless `TZDIR` is set.
const DATABASE: &str = "/usr/share/zoneinfo";
/// The zone of the system.
const SYSTEM: &str = "/etc/localtime";
/// The zone whose daylight saving rules apply if `TZ` has none.
const DEFAULT_RULES: &str = "posixrules";
/// More than any zone file needs.
const SIZE_MAX: u64 = 1024 * 1024;

/// Returns the local time zone, or UTC if it can't be determined.
pub fn local() -> &'static TimeZone {
    static LOCAL: OnceLock<TimeZone> = OnceLock::new();
    LOCAL.get_or_init(|| {
        let database = std::env::var("TZDIR").ok().filter(|dir| !dir.is_empty());
        // A value that is not text names no zone
        let variable = std::env::var_os("TZ").map(|text| text.into_string().unwrap_or_default());
        find(variable.as_deref(), database.as_deref().unwrap_or(DATABASE))
    })
}

/// Returns the zone for a value of `TZ`: a file by its path or by its name in the database, otherwise a rule such as
/// `CET-1CEST`. A colon before it has no effect, and an empty value means UTC.
fn find(variable: Option<&str>, database: &str) -> TimeZone {
    let zone = match variable.map(|text| text.strip_prefix(':').unwrap_or(text)) {
        None => read(SYSTEM),
        Some("") => None,
        Some(path) if path.starts_with('/') => read(path).or_else(|| by_rule(path, database)),
        Some(name) => read(&format!("{database}/{name}")).or_else(|| by_rule(name, database)),
    };
    zone.unwrap_or(TimeZone::UTC)
}

fn by_rule(text: &str, database: &str) -> Option<TimeZone> {
    let default = || rule::changes_of(&read_file(&format!("{database}/{DEFAULT_RULES}"))?);
    rule::read(text, default)
}

fn read(path: &str) -> Option<TimeZone> {
    TimeZone::tzif(path, &read_file(path)?).ok()
}

fn read_file(path: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut data = Vec::new();
    std::fs::File::open(path).ok()?.take(SIZE_MAX).read_to_end(&mut data).ok()?;
    Some(data)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use jiff::Timestamp;

    use super::*;

    /// Winter and summer of both hemispheres, the weeks between the changes in America and in Europe, and years with
    /// other rules.
    const MOMENTS: [i64; 10] = [
        0,
        946_728_000,
        1_700_000_000,
        1_752_000_000,
        1_767_225_600,
        1_773_500_000,
        1_774_800_000,
        1_793_000_000,
        1_793_700_000,
        1_800_000_000,
    ];

    /// The offsets that the C library uses, as `date` prints them.
    fn of_libc(variable: Option<&str>) -> Vec<String> {
        let mut date = Command::new("date");
        match variable {
            Some(text) => date.env("TZ", text),
            None => date.env_remove("TZ"),
        };
        let input = MOMENTS.map(|moment| format!("@{moment}\n")).concat();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("moments");
        std::fs::write(&file, input).unwrap();
        let output = date.env_remove("TZDIR").arg("-f").arg(&file).arg("+%::z").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
    }

    fn ours(variable: Option<&str>) -> Vec<String> {
        let zone = find(variable, DATABASE);
        let text = |moment| {
            let seconds = zone.to_offset(Timestamp::from_second(moment).unwrap()).seconds();
            let (sign, rest) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs());
            format!("{sign}{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
        };
        MOMENTS.map(text).to_vec()
    }

    #[test]
    fn every_form_of_the_variable_means_what_it_means_to_libc() {
        let forms = [
            "",
            ":",
            "UTC",
            ":UTC",
            "::UTC",
            "Europe/Berlin",
            ":Europe/Berlin",
            "America/New_York",
            "Asia/Kolkata",
            "Australia/Lord_Howe",
            "posixrules",
            "/usr/share/zoneinfo/Asia/Tokyo",
            ":/usr/share/zoneinfo/Asia/Tokyo",
            "../zoneinfo/Asia/Tokyo",
            "/nonexistent",
            "../../../etc/passwd",
            "/etc",
            "Europe",
            "Europe/Nowhere",
            "europe/berlin",
            "CET-1CEST",
            ":CET-1CEST",
            "CET-1CEST,",
            "CET-1CEST-3",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "CET-1CEST,M3.5.0/2,M10.5.0/3:00:00",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M3.5.0,",
            "CET-1CEST,M3.5.0,M10.5.0,more",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-1C",
            "CET-1CE",
            "CET-1 CEST",
            "CET 1",
            "CET",
            "ABC",
            "AB5",
            "ABC5",
            "ABC+5",
            "ABC-5",
            "ABC5:30",
            "ABC-5:30:15",
            "ABC5:99",
            "ABC+30",
            "ABC-99",
            "ABC005",
            "ABC+",
            "EST5EDT",
            "EST5EDT4",
            "EST5EDT,M3.2.0,M11.1.0",
            "EST5EDT,J60,J300",
            "EST5EDT,59,299",
            "EST5EDT4:30,M3.2.0/1,M11.1.0/-1",
            "AEST-10AEDT,M10.1.0,M4.1.0/3",
            "AEST-10AEDT",
            "<+03>-3",
            "<-0330>3:30",
            "<+0330>-3:30<+0430>,J79/24,J263/24",
            "<+03>-3<+04>",
            "<+03-3",
            "<>5",
            "<a>5",
            "<A_B>5",
            "<abc>",
            "GMT0",
            "GMT+5",
            "UTC+3",
            "QQQ0QQQ",
            "QQQ3QQQ,M3.2.0,M11.1.0",
            "IST-2IDT,M3.4.4/26,M10.5.0",
            "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
        ];
        for form in forms.map(Some).into_iter().chain([None]) {
            assert_eq!(ours(form), of_libc(form), "TZ={form:?}");
        }
    }
}
