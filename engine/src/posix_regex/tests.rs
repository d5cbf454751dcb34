use super::*;

fn error(expression: &str) -> String {
    PosixRegex::new(expression).unwrap_err().message
}

#[test]
fn operators_mean_what_they_mean_in_posix() {
    for (expression, yes, no) in [
        ("ab", "xabx", "ba"),
        ("^a|b$", "ax", "bx"),
        ("^a{,2}$", "aa", "aaa"),
        ("^a{2,}$", "aaa", "a"),
        ("^a{,}$", "aaaa", "b"),
        ("^a{0}b$", "b", "ab"),
        ("^(ab){2}$", "abab", "ab"),
        ("^a{2}{2}$", "aaaa", "aa"),
        ("^a+?$", "", "b"),
        ("^a**$", "aa", "b"),
        ("^(|x)y$", "y", "z"),
        ("^()y$", "y", "z"),
        ("^.$", "\n", ""),
        ("a)", "a)", "a"),
        ("a}", "a}", "a"),
        ("a]", "a]", "a"),
        ("^\\d$", "d", "1"),
        ("^\\n$", "n", "\n"),
        ("^a\\{1}$", "a{1}", "a"),
        ("\\<pg\\>", "a pg b", "apgb"),
        ("^\\w\\W\\s\\S$", "a- b", "a-b "),
        ("\\`a\\'", "a", "ab"),
        ("x|a^b", "x", "a^b"),
        ("x|a$b", "x", "a$b"),
    ] {
        let regex = PosixRegex::new(expression).unwrap();
        assert!(regex.is_match(yes), "{expression} {yes:?}");
        assert!(!regex.is_match(no), "{expression} {no:?}");
    }
}

#[test]
fn brackets_have_no_escapes_and_may_hold_brackets_and_hyphens() {
    for (expression, yes, no) in [
        ("^[a\\]$", "\\", "]"),
        ("^[]a]$", "]", "b"),
        ("^[^]a]$", "b", "]"),
        ("^[a-]$", "-", "b"),
        ("^[-a]$", "-", "b"),
        ("^[--/]$", ".", "0"),
        ("^[a-c-]$", "-", "d"),
        ("^[[:digit:][:space:]]$", "\t", "a"),
        ("^[[.a.]-c]$", "b", "d"),
        ("^[[=a=]]$", "a", "="),
        ("^[[]$", "[", "]"),
        ("^[a^]$", "^", "b"),
        ("^[*.]$", "*", "a"),
    ] {
        let regex = PosixRegex::new(expression).unwrap();
        assert!(regex.is_match(yes), "{expression} {yes:?}");
        assert!(!regex.is_match(no), "{expression} {no:?}");
    }
}

#[test]
fn bytes_are_matched_as_in_the_c_locale() {
    let regex = |text: &str| PosixRegex::new(text).unwrap();
    assert!(regex("^..$").is_match("é") && !regex("^.$").is_match("é"));
    assert!(regex("^é*$").is_match("é\u{e9}".get(..2).unwrap()));
    assert!(regex("^caf[é][é]$").is_match("café"));
    assert!(!regex("[[:alpha:]]").is_match("é"));
}

#[test]
fn wrong_expressions_have_the_messages_of_glibc() {
    for (expression, message) in [
        ("*a", BAD_REPEAT),
        ("+", BAD_REPEAT),
        ("(*a)", BAD_REPEAT),
        ("a|*", BAD_REPEAT),
        ("^*", BAD_REPEAT),
        ("{1}", BAD_REPEAT),
        ("(?:a)", BAD_REPEAT),
        ("(a", "Unmatched ( or \\("),
        ("a{", "Unmatched \\{"),
        ("a{1", "Unmatched \\{"),
        ("a{1,", "Unmatched \\{"),
        ("a{}", BAD_INTERVAL),
        ("a{x}", BAD_INTERVAL),
        ("a{1,2,3}", BAD_INTERVAL),
        ("a{2,1}", BAD_INTERVAL),
        ("a{32768}", TOO_BIG),
        ("a{99999999999999999999}", TOO_BIG),
        ("a\\", "Trailing backslash"),
        ("\\1", "Invalid back reference"),
        ("(a\\1)", "Invalid back reference"),
        ("[a", "Unmatched [, [^, [:, [., or [="),
        ("[]", "Unmatched [, [^, [:, [., or [="),
        ("[[:alpha:", "Unmatched [, [^, [:, [., or [="),
        ("[b-a]", "Invalid range end"),
        ("[a-c-e]", "Invalid range end"),
        ("[[:alpha:]-z]", "Invalid range end"),
        ("[[:foo:]]", "Invalid character class name"),
        ("[[.ab.]]", "Invalid collation character"),
    ] {
        assert_eq!(error(expression), message, "{expression}");
    }
    assert_eq!(error("(a)\\1"), "back references in regular expressions are not supported");
}

#[test]
fn hostile_expressions_are_refused_or_bounded() {
    for expression in [
        "(".repeat(100_000),
        format!("a{}", "*".repeat(100_000)),
        "((a{1000}){1000}){1000}".to_owned(),
        "(((){30000}){30000}){30000}".to_owned(),
        "a{30000}".repeat(10),
    ] {
        let short: String = expression.chars().take(30).collect();
        assert_eq!(error(&expression), TOO_BIG, "{short}");
    }
    // An expression that takes a backtracking matcher very long
    assert!(!PosixRegex::new("^(a*)*(a*)*(a|aa)*$").unwrap().is_match(&("a".repeat(255) + "b")));
}
