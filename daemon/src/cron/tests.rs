use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

fn cron(text: &str) -> Cron {
    Cron::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn error(text: &str) -> String {
    Cron::parse(text).unwrap_err().to_string()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// The next times after a local one, as local times with their offset.
fn times(text: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (cron(text), zone(zone_name));
    let after: DateTime = after.parse().unwrap();
    let mut at = zone.to_timestamp(after).unwrap();
    (0..count)
        .map(|_| {
            at = cron.next(at, &zone).unwrap();
            at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S%:z").to_string()
        })
        .collect()
}

fn utc(text: &str, count: usize) -> Vec<String> {
    let times = times(text, "UTC", "2026-01-01 00:00:00", count);
    times.iter().map(|time| time.trim_end_matches("+00:00").to_owned()).collect()
}

#[test]
fn five_fields_begin_with_the_minute_and_six_with_the_second() {
    assert_eq!(utc("5 3 * * *", 2), ["Thu 2026-01-01 03:05:00", "Fri 2026-01-02 03:05:00"]);
    assert_eq!(utc("7 5 3 * * *", 2), ["Thu 2026-01-01 03:05:07", "Fri 2026-01-02 03:05:07"]);
    assert_eq!(
        utc("*/20 * * * * *", 3),
        ["Thu 2026-01-01 00:00:20", "Thu 2026-01-01 00:00:40", "Thu 2026-01-01 00:01:00"]
    );
}

#[test]
fn every_form_of_an_element_is_accepted_in_every_field() {
    let same = [
        ("0,15,30,45 * * * *", "*/15 * * * *"),
        ("0-4,10-20/5,59 * * * *", "0,1,2,3,4,10,15,20,59 * * * *"),
        ("50/4 * * * *", "50,54,58 * * * *"),
        ("0 22-2 * * *", "0 0,1,2,22,23 * * *"),
        ("0 20-4/3 * * *", "0 20,23,2 * * *"),
        ("0 0 29-2 * *", "0 0 1,2,29,30,31 * *"),
        ("0 0 1 NOV-FEB *", "0 0 1 1,2,11,12 *"),
        ("0 0 1 JAN,mar,Dec *", "0 0 1 1,3,12 *"),
        ("0 0 1 JAN-DEC *", "0 0 1 * *"),
        ("0 0 * * FRI-MON", "0 0 * * 0,1,5,6"),
        ("0 0 * * FRI-MON/2", "0 0 * * 5,0"),
        ("0 0 * * sat-sun", "0 0 * * 0,6"),
        ("0 0 * * SUN-SAT", "0 0 * * 0-6"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * * 0-7", "0 0 * * 0-6"),
        ("0 0 * * 7", "0 0 * * SUN"),
        ("0 0 * * 7-2", "0 0 * * 0-2"),
        ("0 0 * * 7-7", "0 0 * * 0"),
        ("30-10/10 * * * * *", "30,40,50,0,10 * * * * *"),
    ];
    for (text, plain) in same {
        let sets = |cron: Cron| {
            let fields = [cron.second, cron.minute, cron.hour, cron.day, cron.month, cron.weekday];
            fields.map(|field| (0..=63).filter(|&value| field.has(value)).collect::<Vec<i8>>())
        };
        assert_eq!(sets(cron(text)), sets(cron(plain)), "{text}");
    }
}

#[test]
fn names_mean_what_they_mean_to_cron() {
    assert_eq!(utc("@hourly", 2), ["Thu 2026-01-01 01:00:00", "Thu 2026-01-01 02:00:00"]);
    assert_eq!(utc("@Daily", 1), ["Fri 2026-01-02 00:00:00"]);
    assert_eq!(utc("@midnight", 1), ["Fri 2026-01-02 00:00:00"]);
    assert_eq!(utc("@weekly", 2), ["Sun 2026-01-04 00:00:00", "Sun 2026-01-11 00:00:00"]);
    assert_eq!(utc("@monthly", 2), ["Sun 2026-02-01 00:00:00", "Sun 2026-03-01 00:00:00"]);
    assert_eq!(utc("@yearly", 1), ["Fri 2027-01-01 00:00:00"]);
    assert_eq!(utc("@annually", 1), ["Fri 2027-01-01 00:00:00"]);
}

#[test]
fn both_days_given_means_either() {
    assert_eq!(
        utc("0 0 13 * FRI", 5),
        [
            "Fri 2026-01-02 00:00:00",
            "Fri 2026-01-09 00:00:00",
            "Tue 2026-01-13 00:00:00",
            "Fri 2026-01-16 00:00:00",
            "Fri 2026-01-23 00:00:00"
        ]
    );
}

#[test]
fn day_that_begins_with_a_star_leaves_the_other_alone() {
    for text in ["0 0 ? * FRI", "0 0 * * FRI"] {
        assert_eq!(utc(text, 2), ["Fri 2026-01-02 00:00:00", "Fri 2026-01-09 00:00:00"], "{text}");
    }
    for text in ["0 0 13 * ?", "0 0 13 * *"] {
        assert_eq!(utc(text, 2), ["Tue 2026-01-13 00:00:00", "Fri 2026-02-13 00:00:00"], "{text}");
    }
    // Every second day that is also a Friday, as in cron
    assert_eq!(utc("0 0 */2 * FRI", 2), ["Fri 2026-01-09 00:00:00", "Fri 2026-01-23 00:00:00"]);
}

#[test]
fn rare_days_are_found() {
    assert_eq!(utc("0 0 29 2 *", 2), ["Tue 2028-02-29 00:00:00", "Sun 2032-02-29 00:00:00"]);
    assert_eq!(utc("0 0 29 2 */6", 1), ["Sun 2032-02-29 00:00:00"]);
    assert_eq!(utc("0 0 31 4,5 *", 1), ["Sun 2026-05-31 00:00:00"]);
}

#[test]
fn errors_point_at_the_field() {
    for (text, problem) in [
        ("60 * * * *", "field 1 (minute) '60': 60 is not in 0-59"),
        ("0 25 * * *", "field 2 (hour) '25': 25 is not in 0-23"),
        ("0 0 0 * *", "field 3 (day of month) '0': 0 is not in 1-31"),
        ("0 0 1 13 *", "field 4 (month) '13': 13 is not in 1-12"),
        ("0 0 1 * 8", "field 5 (day of week) '8': 8 is not in 0-7"),
        ("0 61 0 1 * 0", "field 2 (minute) '61': 61 is not in 0-59"),
        ("99 0 0 1 * 0", "field 1 (second) '99': 99 is not in 0-59"),
        ("0 0 * * MONDAY", "field 5 (day of week) 'MONDAY': 'MONDAY' is not a number or a name (SUN-SAT)"),
        ("0 0 1 MON *", "field 4 (month) 'MON': 'MON' is not a number or a name (JAN-DEC)"),
        ("MON 0 * * *", "field 1 (minute) 'MON': 'MON' is not a number"),
        ("1,,2 * * * *", "field 1 (minute) '1,,2': an element of the list is empty"),
        ("1, * * * *", "field 1 (minute) '1,': an element of the list is empty"),
        ("*/0 * * * *", "field 1 (minute) '*/0': a step can't be 0"),
        ("*/90 * * * *", "field 1 (minute) '*/90': step 90 is more than the 60 values of the field"),
        ("*/x * * * *", "field 1 (minute) '*/x': step 'x' is not a number"),
        ("*/ * * * *", "field 1 (minute) '*/': step '' is not a number"),
        ("? * * * *", "field 1 (minute) '?': '?' is for days only"),
        ("-5 * * * *", "field 1 (minute) '-5': '' is not a number"),
        ("1-2-3 * * * *", "field 1 (minute) '1-2-3': '2-3' is not a number"),
        ("+1 * * * *", "field 1 (minute) '+1': '+1' is not a number"),
        ("0 0 L * *", "field 3 (day of month) 'L': 'L' is not a number"),
        ("0 0 30 2 *", "fields 'day of month' and 'month': no month has such a day"),
        ("* * * *", "it has 4 fields instead of 5 or 6"),
        ("* * * * * * *", "it has 7 fields instead of 5 or 6"),
        ("", "it has 0 fields instead of 5 or 6"),
        ("@reboot", "there is no such name"),
    ] {
        let error = error(text);
        assert!(error.starts_with(&format!("schedule '{text}' is not valid: {problem}")), "{error}");
    }
    assert!(error(&"1,".repeat(200)).contains("longer than 256 bytes"));
}

#[test]
fn clock_put_forward_runs_a_fixed_time_once_at_the_change() {
    // 02:00 to 03:00 on 29 March 2026
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-03-28 00:00:00", 3),
        ["Sat 2026-03-28 02:30:00+01:00", "Sun 2026-03-29 03:00:00+02:00", "Mon 2026-03-30 02:30:00+02:00"]
    );
    // Several missing times are one run
    assert_eq!(
        times("0,20,40 2 * * *", "Europe/Berlin", "2026-03-29 00:00:00", 2),
        ["Sun 2026-03-29 03:00:00+02:00", "Mon 2026-03-30 02:00:00+02:00"]
    );
    // The missing time and the one at the change are the same instant
    assert_eq!(
        times("0 2,3 * * *", "Europe/Berlin", "2026-03-29 00:00:00", 2),
        ["Sun 2026-03-29 03:00:00+02:00", "Mon 2026-03-30 02:00:00+02:00"]
    );
}

#[test]
fn clock_put_forward_leaves_out_what_runs_all_the_time() {
    assert_eq!(
        times("*/30 * * * *", "Europe/Berlin", "2026-03-29 01:00:00", 3),
        ["Sun 2026-03-29 01:30:00+01:00", "Sun 2026-03-29 03:00:00+02:00", "Sun 2026-03-29 03:30:00+02:00"]
    );
}

#[test]
fn clock_put_back_runs_a_fixed_time_the_first_time_only() {
    // 03:00 to 02:00 on 25 October 2026
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00:00", 2),
        ["Sun 2026-10-25 02:30:00+02:00", "Mon 2026-10-26 02:30:00+01:00"]
    );
    assert_eq!(
        times("0 2,3 * * *", "Europe/Berlin", "2026-10-25 00:00:00", 3),
        ["Sun 2026-10-25 02:00:00+02:00", "Sun 2026-10-25 03:00:00+01:00", "Mon 2026-10-26 02:00:00+01:00"]
    );
}

#[test]
fn clock_put_back_runs_what_runs_all_the_time_both_times() {
    assert_eq!(
        times("0 * * * *", "Europe/Berlin", "2026-10-25 01:00:00", 3),
        ["Sun 2026-10-25 02:00:00+02:00", "Sun 2026-10-25 02:00:00+01:00", "Sun 2026-10-25 03:00:00+01:00"]
    );
}

#[test]
fn calendar_that_skips_a_day_leaves_the_day_out() {
    // Samoa had no 30 December 2011
    assert_eq!(
        times("0 12 * * *", "Pacific/Apia", "2011-12-29 00:00:00", 2),
        ["Thu 2011-12-29 12:00:00-10:00", "Sat 2011-12-31 12:00:00+14:00"]
    );
}

#[test]
fn last_time_is_the_newest_within_its_limits() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let last = |text: &str, after: &str, until: &str| {
        cron(text).last(at(after), at(until), &TimeZone::UTC).map(|time| time.to_string())
    };
    assert_eq!(last("0 3 * * *", "2026-01-01T00:00:00Z", "2026-01-09T02:59:59Z").unwrap(), "2026-01-08T03:00:00Z");
    assert_eq!(last("0 3 * * *", "2026-01-01T00:00:00Z", "2026-01-09T03:00:00Z").unwrap(), "2026-01-09T03:00:00Z");
    assert_eq!(last("0 3 * * *", "2026-01-09T03:00:00Z", "2026-01-09T04:00:00Z"), None);
    assert_eq!(last("0 0 29 2 *", "2020-01-01T00:00:00Z", "2026-01-09T03:00:00Z").unwrap(), "2024-02-29T00:00:00Z");
    assert_eq!(last("* * * * * *", "2020-01-01T00:00:00Z", "2026-01-09T03:00:00.9Z").unwrap(), "2026-01-09T03:00:00Z");
}

/// Returns the due minutes in a range as a clock finds them that looks at the wall every minute.
fn by_looking(cron: &Cron, zone: &TimeZone, from: Timestamp, minutes: i64) -> Vec<Timestamp> {
    let at = |minute: i64| from + SignedDuration::from_mins(minute);
    let wall = |minute| zone.to_datetime(at(minute));
    let matches = |wall: DateTime| {
        cron.minute.has(wall.minute()) && cron.hour.has(wall.hour()) && cron.month.has(wall.month()) && {
            let (day, weekday) = (cron.day.has(wall.day()), cron.weekday.has(wall.weekday().to_sunday_zero_offset()));
            if cron.day.is_open || cron.weekday.is_open { day && weekday } else { day || weekday }
        }
    };
    let mut reached = wall(0);
    let mut due = Vec::new();
    for minute in 1..=minutes {
        let now = wall(minute);
        let mut is_due = matches(now);
        if !cron.is_open() {
            let mut skipped = reached + SignedDuration::from_mins(1);
            while skipped < now {
                is_due |= matches(skipped);
                skipped += SignedDuration::from_mins(1);
            }
            is_due &= now > reached;
            reached = reached.max(now);
        }
        if is_due {
            due.push(at(minute));
        }
    }
    due
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn times_are_those_that_a_look_at_every_minute_finds(
        minute in prop_oneof![Just("*".to_owned()), Just("*/17".to_owned()), Just("0".to_owned()), Just("30-10/20".to_owned()), (0..60_u8).prop_map(|m| m.to_string())],
        hour in prop_oneof![Just("*".to_owned()), Just("*/5".to_owned()), Just("22-4".to_owned()), Just("1,2,3".to_owned()), (0..4_u8).prop_map(|h| h.to_string())],
        days in prop_oneof![Just("* * *"), Just("? * SAT-SUN"), Just("*/2 * *"), Just("1-15 * SUN")],
        place in prop_oneof![
            Just(("Europe/Berlin", "2026-03-27T10:00:00Z")), Just(("Europe/Berlin", "2026-10-23T10:00:00Z")),
            Just(("America/New_York", "2026-03-06T10:00:00Z")), Just(("America/New_York", "2026-10-30T10:00:00Z")),
            Just(("Australia/Lord_Howe", "2026-04-03T10:00:00Z")), Just(("Australia/Lord_Howe", "2026-10-02T10:00:00Z")),
            Just(("America/Sao_Paulo", "2018-11-02T10:00:00Z")), Just(("America/Sao_Paulo", "2018-02-16T10:00:00Z")),
            Just(("Africa/Casablanca", "2025-02-21T10:00:00Z")), Just(("Asia/Kolkata", "2026-03-27T10:00:00Z")),
        ],
        shift in 0..3000_i64,
    ) {
        let cron = cron(&format!("{minute} {hour} {days}"));
        let zone = zone(place.0);
        // The look begins on a day without a change
        let from: Timestamp = place.1.parse().unwrap();
        let expected = by_looking(&cron, &zone, from, 5 * 24 * 60);
        let end = from + SignedDuration::from_mins(5 * 24 * 60);
        let mut found = Vec::new();
        let mut at = from;
        while let Some(time) = cron.next(at, &zone).filter(|time| *time <= end) {
            found.push(time);
            at = time;
        }
        prop_assert_eq!(&found, &expected);
        // From any other moment the same times follow
        let other = from + SignedDuration::from_mins(shift);
        prop_assert_eq!(cron.next(other, &zone).filter(|time| *time <= end), expected.iter().copied().find(|time| *time > other));
        prop_assert_eq!(cron.last(from, other, &zone), expected.iter().copied().rfind(|time| *time <= other));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[-*/,?@0-9A-Za-z ]{0,40}") {
        if let Ok(cron) = Cron::parse(&text) {
            prop_assert!(cron.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_some());
        }
    }
}
