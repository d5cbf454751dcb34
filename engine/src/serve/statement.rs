//! The statements that a client may send to PostgreSQL.
//!
//! The session of a server can have the rights of a superuser, and a client needs them for a few statements only: to
//! read settings, to start and stop a backup, to switch WAL, to look at recovery. pgBackRest words them a little
//! differently from one version to the next, so what counts is the vocabulary: a statement may use the words of these
//! statements, plain texts and numbers, and no other function, table or setting. A table stands alone behind `from`, so
//! that results stay as small as the table. Of the settings, a client reads those that a backup needs.
//!
//! Source: pgBackRest 2.60.0 `src/db/db.c`, and [`crate::pg::session`].

use crate::pg::statements;

/// The words of the statements, in lower case, sorted.
const WORDS: [&str; 58] = [
    "application_name",
    "as",
    "backuplabel_file",
    "bigint",
    "bool",
    "checkpoint",
    "checkpoint_location",
    "checkpoint_lsn",
    "checkpointlsn",
    "client_encoding",
    "clock_timestamp",
    "coalesce",
    "current_timestamp",
    "datlastsysoid",
    "datname",
    "epoch",
    "extract",
    "false",
    "from",
    "int4",
    "labelfile",
    "lsn",
    "max_parallel_workers_per_gather",
    "name",
    "oid",
    "pg_backup_start",
    "pg_backup_stop",
    "pg_catalog",
    "pg_control_checkpoint",
    "pg_create_restore_point",
    "pg_current_wal_insert_lsn",
    "pg_current_xlog_insert_location",
    "pg_database",
    "pg_is_in_recovery",
    "pg_last_wal_replay_lsn",
    "pg_last_xlog_replay_location",
    "pg_settings",
    "pg_start_backup",
    "pg_stop_backup",
    "pg_switch_wal",
    "pg_switch_xlog",
    "pg_tablespace",
    "pg_walfile_name",
    "pg_xlogfile_name",
    "replaylsn",
    "replayprogress",
    "search_path",
    "select",
    "set",
    "setting",
    "spcmapfile",
    "spcname",
    "tablespacemap_file",
    "targetreached",
    "text",
    "true",
    "wal_segment_name",
    "where",
];

/// Characters outside of words and texts.
const SIGNS: &str = " \n().,:=|<>*";

/// The largest statement, in bytes. Those of clients have some hundred.
const STATEMENT_BYTES_MAX: usize = 8192;

/// Tables, which have many rows.
const TABLES: [&str; 3] = ["pg_database", "pg_settings", "pg_tablespace"];

/// Words other than functions of PostgreSQL that a parenthesis may follow.
const BEFORE_PARENTHESIS: [&str; 4] = ["clock_timestamp", "coalesce", "extract", "select"];

/// The settings that a client may read. Others may contain passwords.
const SETTINGS: [&str; 6] = [
    "archive_command",
    "archive_library",
    "archive_mode",
    "checkpoint_timeout",
    "data_directory",
    "server_version_num",
];

/// A part of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// In lower case.
    Word(String),
    Number(&'a str),
    Text(&'a str),
    Sign(char),
}

impl Token<'_> {
    fn is(&self, expected: &str) -> bool {
        match self {
            Token::Word(word) => word == expected,
            Token::Number(number) => *number == expected,
            Token::Text(_) => false,
            Token::Sign(sign) => expected.chars().eq([*sign]),
        }
    }
}

/// Returns whether a client may send the statement.
pub(super) fn is_for_clients(sql: &str) -> bool {
    if statements::ALL.contains(&sql) {
        return true;
    }
    if sql.len() > STATEMENT_BYTES_MAX {
        return false;
    }
    let Some(tokens) = tokens(sql) else { return false };
    match tokens.as_slice() {
        [first, rest @ ..] if first.is("set") => is_setting_for_clients(rest),
        tokens => (0..tokens.len()).all(|index| is_in_place(&tokens[..index], &tokens[index], &tokens[index + 1..])),
    }
}

/// Whether a session's setting may have the value.
fn is_setting_for_clients(rest: &[Token<'_>]) -> bool {
    let [Token::Word(name), Token::Sign('='), value] = rest else { return false };
    match (name.as_str(), value) {
        // With another one, functions of a database's owner would run in the place of those of the vocabulary
        ("search_path", value) => *value == Token::Text("pg_catalog"),
        ("client_encoding", value) => *value == Token::Text("UTF8"),
        ("application_name", Token::Text(_)) | ("max_parallel_workers_per_gather", Token::Number(_)) => true,
        _ => false,
    }
}

/// Whether a part of a statement that sets nothing may stand between those before and after it.
fn is_in_place(before: &[Token<'_>], token: &Token<'_>, after: &[Token<'_>]) -> bool {
    let is_next = |expected: &str| after.first().is_some_and(|next| next.is(expected));
    let ends_with = |expected: &[&str]| {
        before.len() >= expected.len()
            && before[before.len() - expected.len()..].iter().zip(expected).all(|(token, expected)| token.is(expected))
    };
    match token {
        Token::Word(word) if TABLES.contains(&word.as_str()) => {
            let is_alone = after.first().is_none_or(|next| next.is(")") || next.is("where"));
            ends_with(&["from", "pg_catalog", "."]) && is_alone && (word != "pg_settings" || names_setting(after))
        }
        Token::Word(word) => match word.as_str() {
            "set" => false,
            // Of `extract`, or of a statement
            "from" => ends_with(&["(", "epoch"]) || is_next("pg_catalog"),
            word => !is_next("(") || word.starts_with("pg_") || BEFORE_PARENTHESIS.contains(&word),
        },
        // A dot behind another word could call a function
        Token::Sign('.') => ends_with(&["pg_catalog"]),
        _ => true,
    }
}

/// Whether the condition of a table limits it to a setting that clients may read.
fn names_setting(condition: &[Token<'_>]) -> bool {
    let [Token::Word(r#where), Token::Word(name), Token::Sign('='), Token::Text(setting), rest @ ..] = condition else {
        return false;
    };
    r#where == "where" && name == "name" && SETTINGS.contains(setting) && rest.first().is_none_or(|next| next.is(")"))
}

/// Divides a statement; `None` if it has words that are not of the vocabulary, or something else.
fn tokens(sql: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            // A quote within a text is doubled, which looks like two texts. A backslash means something in some settings
            let (text, after) = rest[1..].split_once('\'').filter(|(text, _)| !text.contains('\\'))?;
            tokens.push(Token::Text(text));
            rest = after;
        } else if first.is_ascii_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            if word.bytes().all(|byte| byte.is_ascii_digit()) {
                tokens.push(Token::Number(word));
                continue;
            }
            let word = word.to_ascii_lowercase();
            // A text right behind a word may be of another kind, such as `e'...'`
            if WORDS.binary_search(&word.as_str()).is_err() || rest.starts_with('\'') {
                return None;
            }
            tokens.push(Token::Word(word));
        } else if SIGNS.contains(first) {
            rest = &rest[first.len_utf8()..];
            if !matches!(first, ' ' | '\n') {
                tokens.push(Token::Sign(first));
            }
        } else {
            return None;
        }
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted() {
        assert!(WORDS.is_sorted());
    }

    #[test]
    fn statement_of_pgbackrest_is_allowed() {
        // As captured from 2.60.0, and as the program contains them
        for sql in [
            "select pg_catalog.pg_is_in_recovery()",
            "set search_path = 'pg_catalog'",
            "set client_encoding = 'UTF8'",
            "set application_name = 'pgBackRest [backup]'",
            "set max_parallel_workers_per_gather = 0",
            "select (select setting from pg_catalog.pg_settings where name = 'server_version_num')::int4, \
             (select setting from pg_catalog.pg_settings where name = 'archive_command')::text",
            "select lsn::text as lsn,\n       pg_catalog.pg_walfile_name(lsn)::text as wal_segment_name\n  from \
             pg_catalog.pg_backup_start('pgBackRest backup started at ' || current_timestamp::text, true) as lsn",
            "select lsn::text as lsn,\n       pg_catalog.pg_walfile_name(lsn)::text as wal_segment_name,\n       \
             labelfile::text as backuplabel_file,\n       spcmapfile::text as tablespacemap_file\n  from \
             pg_catalog.pg_stop_backup(false, false)",
            "select pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())::text",
            "select oid::oid, datname::text, (select oid::oid from pg_catalog.pg_database where datname = 'template0') \
             as datlastsysoid from pg_catalog.pg_database",
            "select oid::oid, spcname::text from pg_catalog.pg_tablespace",
            "select (extract(epoch from clock_timestamp()) * 1000)::bigint",
            "select pg_catalog.pg_create_restore_point('pgBackRest Archive Check')::text",
            "select pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())::text",
            "select replayLsn::text,\n       (replayLsn > '0/3000060')::bool as targetReached,\n       \
             (replayLsn > '0/2000000')::bool as replayProgress\n  from pg_catalog.pg_last_wal_replay_lsn() as replayLsn",
            "checkpoint",
            "select (checkpoint_lsn >= '0/3000060')::bool as targetReached,\n       checkpoint_lsn::text as \
             checkpointLsn\n  from pg_catalog.pg_control_checkpoint()",
            "select setting::text from pg_catalog.pg_settings where name = 'archive_library'",
            "select replayLsn::text from pg_catalog.pg_last_xlog_replay_location() as replayLsn",
        ] {
            assert!(is_for_clients(sql), "{sql}");
        }
        for sql in statements::ALL {
            assert!(is_for_clients(sql) && !is_for_clients(&format!("{sql} ")), "{sql}");
        }
    }

    #[test]
    fn statement_that_does_something_else_is_not_allowed() {
        for sql in [
            "select pg_catalog.pg_read_file('/etc/passwd')",
            "select pg_catalog.set_config(name, 'x', false) from pg_catalog.pg_settings where name in ('archive_command')",
            "select 1; drop table orders",
            "select rolpassword from pg_catalog.pg_authid",
            "set archive_library = 'x'",
            "select \"pg_read_file\"('x')",
            "select e'\\047 || pg_read_file'",
            "select u&'d\\0061t'",
            "select $$x$$",
            "select 'open",
            "select 1 -- from",
            "select /* */ 1",
            "select pg_catalog.pg_is_in_recovery() é",
        ] {
            assert!(!is_for_clients(sql), "{sql}");
        }
    }

    #[test]
    fn statement_that_shows_sessions_of_others_is_not_allowed() {
        for sql in [
            "select pg_stat_activity::text from pg_catalog.pg_stat_activity",
            "select application_name::text from pg_catalog.pg_stat_activity",
            "select pg_database::text from pg_catalog.pg_database",
            "select text(pg_tablespace) from pg_catalog.pg_tablespace",
            "select pg_tablespace.spcname from pg_catalog.pg_tablespace",
        ] {
            assert!(!is_for_clients(sql), "{sql}");
        }
    }

    #[test]
    fn functions_of_the_database_are_not_called() {
        for sql in [
            "set search_path = 'public'",
            "set search_path = public",
            "set search_path = 'pg_catalog', 'public'",
            "set client_encoding = 'SJIS'",
            "set checkpoint = 1",
            "select checkpoint('x')",
            "select lsn(1)",
            "select lsn.wal_segment_name from pg_catalog.pg_switch_wal() as lsn",
        ] {
            assert!(!is_for_clients(sql), "{sql}");
        }
    }

    #[test]
    fn result_does_not_grow_beyond_a_table() {
        for sql in [
            "select 1 from pg_catalog.pg_settings, pg_catalog.pg_settings as name",
            "select 1 from pg_catalog.pg_database as name, pg_catalog.pg_database as lsn",
            "select 1 from pg_catalog.pg_database, pg_catalog.pg_database",
            "select 1 from (select 1 from pg_catalog.pg_database) as name, (select 1 from pg_catalog.pg_database) as lsn",
            "select 1 from pg_catalog.pg_switch_wal() as lsn, pg_catalog.pg_database",
            "select setting from pg_catalog.pg_settings",
            "select setting from pg_catalog.pg_settings where name = 'primary_conninfo'",
            "select setting from pg_catalog.pg_settings where name = 'archive_mode' = false",
        ] {
            assert!(!is_for_clients(sql), "{sql}");
        }
        assert!(!is_for_clients(&format!("select {}1", "1, ".repeat(STATEMENT_BYTES_MAX))));
    }
}
