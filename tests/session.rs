//! The session with real servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::pg::cluster::{ArchiveCheck, Search, check_config, find};
use engine::pg::session::NO_TIMEOUTS;
use engine::pg::{PgConnection, PgHost, PgSession, PgSettings};
use engine::{CancelToken, ErrorCode};
use repo_format::wal_name::WalSegment;

use crate::env::network::{certificates, free_ports};
use crate::env::{Cluster, Run, Shutdown, Space, oracles};

const ARCHIVE_SETTINGS: [&str; 2] = ["archive_mode = on", "archive_command = 'true pgbackrest'"];

fn cluster(version: u32) -> Option<Cluster> {
    let oracles = oracles(&[version])?;
    let settings = ARCHIVE_SETTINGS.map(str::to_owned);
    let mut cluster = Cluster::create(&Arc::new(Space::new()), oracles, version, "pg", &settings);
    cluster.start();
    Some(cluster)
}

fn settings(cluster: &Cluster, key: u32) -> PgSettings {
    PgSettings {
        key,
        socket_path: Some(PathBuf::from(cluster.socket())),
        user: Some("postgres".to_owned()),
        db_timeout: Duration::from_secs(30),
        ..PgSettings::new(cluster.data())
    }
}

fn host(settings: PgSettings) -> Arc<dyn PgHost> {
    settings.into()
}

fn connect(cluster: &Cluster) -> Box<dyn PgConnection> {
    host(settings(cluster, 1)).connect(&CancelToken::new()).unwrap()
}

fn backup_session_on(version: u32) {
    let Some(cluster) = cluster(version) else { return };
    let mut session = PgSession::connect(&host(settings(&cluster, 1)), &CancelToken::new()).unwrap();
    assert_eq!(session.version().to_string(), version.to_string());
    assert!(!session.is_standby());
    check_config(&session, Some(ArchiveCheck { mode_check: true })).unwrap();
    let shown = cluster.sql("select application_name from pg_stat_activity where application_name like 'pgBackRest%'");
    assert_eq!(shown, "pgBackRest [backup]");

    let start = session.backup_start(true, true).unwrap();
    let control = *session.control();
    assert_eq!(start.wal_segment, WalSegment::from_lsn(control.timeline, start.lsn, control.wal_segment_size));
    assert!(start.wal_segment_check.unwrap() <= start.wal_segment);
    assert_eq!(start.lsn_text.parse::<repo_format::wal_name::Lsn>().unwrap(), start.lsn);

    let (databases, tablespaces) = session.databases_and_tablespaces().unwrap();
    let template0 = databases.iter().find(|database| database.name == "template0").unwrap();
    assert!(databases.iter().all(|database| database.last_system_oid == template0.oid));
    assert!(tablespaces.iter().any(|tablespace| tablespace.name == "pg_default"));
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    assert!(now_ms.abs_diff(session.time_ms().unwrap() as u128) < 60_000);
    session.ping(true).unwrap();

    let (stop, _) = session.backup_stop().unwrap();
    assert!(stop.lsn > start.lsn && stop.wal_segment >= start.wal_segment);
    assert!(stop.backup_label.contains(&format!("START WAL LOCATION: {}", start.lsn_text)), "{}", stop.backup_label);
    assert!(stop.backup_label.contains("LABEL: pgBackRest backup started at "), "{}", stop.backup_label);
    assert_eq!(stop.tablespace_map, None);
    assert!(session.wal_switch().unwrap() >= stop.wal_segment);
}

#[test]
fn backup_session_on_13_starts_and_stops() {
    backup_session_on(13);
}

#[test]
fn backup_session_on_15_starts_and_stops() {
    backup_session_on(15);
}

#[test]
fn backup_session_on_18_starts_and_stops() {
    backup_session_on(18);
}

#[test]
fn query_too_slow_or_cancelled_leaves_the_connection_usable() {
    let Some(cluster) = cluster(15) else { return };
    let cancel = CancelToken::new();
    let quick = PgSettings { db_timeout: Duration::from_secs(2), ..settings(&cluster, 1) };
    let mut client = host(quick).connect(&cancel).unwrap();
    let error = client.rows::<1>("select pg_sleep(60)").unwrap_err();
    assert_eq!(error.code, ErrorCode::DbQuery);
    assert_eq!(error.message, "query 'select pg_sleep(60)' timed out after 2000ms");
    assert_eq!(client.value("select 1").unwrap(), "1");
    assert_eq!(cluster.sql("select count(*) from pg_stat_activity where query like '%pg_sl%(60)'"), "0");

    let error = client.value("select 1/0").unwrap_err();
    assert_eq!(error.message, "unable to execute query 'select 1/0': ERROR:  division by zero");
    assert_eq!(
        client.value("select 1 where false").unwrap_err().message,
        "expected one row from 'select 1 where false'"
    );

    let mut client = host(settings(&cluster, 1)).connect(&cancel).unwrap();
    cancel.cancel_by_signal(15);
    assert_eq!(client.rows::<1>("select pg_sleep(60)").unwrap_err().code, ErrorCode::Term);
}

#[test]
fn query_on_a_stopped_server_is_db_query_error() {
    let Some(mut cluster) = cluster(15) else { return };
    let mut client = connect(&cluster);
    cluster.stop(Shutdown::Immediate);
    let error = client.value("select 1").unwrap_err();
    assert_eq!(error.code, ErrorCode::DbQuery);
    assert!(error.message.starts_with("unable to "), "{}", error.message);
}

#[test]
fn passwords_come_from_environment_and_password_file() {
    let Some(oracles) = oracles(&[15]) else { return };
    let space = Arc::new(Space::new());
    let mut cluster = Cluster::create(&space, oracles, 15, "pg", &ARCHIVE_SETTINGS.map(str::to_owned));
    cluster.start();
    cluster.sql("create role keeper superuser login password 'pass:word'");
    cluster.stop(Shutdown::Fast);
    fs::write(cluster.data().join("pg_hba.conf"), "local all keeper scram-sha-256\nlocal all all trust\n").unwrap();
    cluster.start();
    let create = |password: Option<&str>| {
        let mut command = space.command(space.path("bin/rbr"));
        for (option, value) in [
            ("repo1-path", space.text("repo")),
            ("pg1-path", cluster.data_text()),
            ("pg1-socket-path", cluster.socket()),
            ("pg1-user", "keeper".to_owned()),
            ("lock-path", space.text("lock")),
            ("log-level-file", "off".to_owned()),
            ("log-level-console", "info".to_owned()),
            ("config", "/dev/null".to_owned()),
        ] {
            command.arg(format!("--{option}={value}"));
        }
        command.args(["--stanza=demo", "stanza-create"]);
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
        Run::of(command)
    };
    create(None).fails(56).says("password missing");
    create(Some("wrong")).fails(56).says("password authentication failed for user \"keeper\"");
    create(Some("pass:word")).success();
    create(Some("")).fails(56).says("password missing");
    let passfile = space.write(".pgpass", format!("{}:5432:postgres:keeper:pass\\:word\n", cluster.socket()));
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o644)).unwrap();
    create(None).fails(56).says("has group or world access");
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    create(None).success();
    create(Some("")).success();
}

/// A primary and a standby that follows it.
fn pair() -> Option<(Cluster, Cluster)> {
    let oracles = oracles(&[15])?;
    let space = Arc::new(Space::new());
    let mut primary = Cluster::create(&space, oracles, 15, "pg", &ARCHIVE_SETTINGS.map(str::to_owned));
    let mut standby = Cluster::existing(&space, oracles, 15, "standby");
    space.copy("pg", "standby");
    fs::write(standby.data().join("standby.signal"), "").unwrap();
    space.user().own(&standby.data().join("standby.signal"));
    let conninfo = format!("primary_conninfo = 'host={} user=postgres'\n", primary.socket());
    fs::write(standby.data().join("postgresql.auto.conf"), conninfo).unwrap();
    primary.start();
    standby.start();
    Some((primary, standby))
}

#[test]
fn find_tells_primary_from_standby_and_waits_for_replay() {
    let Some((primary, mut standby)) = pair() else { return };
    let cancel = CancelToken::new();
    let mut both = [host(settings(&standby, 1)), host(settings(&primary, 2))];
    let search = Search { primary_required: true, standby_required: true, ..Search::default() };
    let mut found = find(&both, search, &cancel).unwrap();
    let (mut primary_session, mut standby_session) = (found.primary.take().unwrap(), found.standby.take().unwrap());
    assert_eq!((primary_session.host().key(), standby_session.host().key()), (2, 1));
    check_config(&standby_session, Some(ArchiveCheck { mode_check: true })).unwrap();

    let start = primary_session.backup_start(true, true).unwrap();
    primary.sql("create table after_start()");
    standby_session.replay_wait(start.lsn, start.wal_segment.timeline, Duration::from_secs(60)).unwrap();
    assert!(standby_session.control().checkpoint >= start.lsn);
    standby_session.ping(true).unwrap();
    primary_session.backup_stop().unwrap();
    // A standby that is ahead of the start does not follow this primary
    let error = standby_session
        .replay_wait(repo_format::wal_name::Lsn(1), start.wal_segment.timeline, Duration::from_secs(1))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::DbMismatch);

    let primary_only = find(&both, Search { primary_only: true, ..Search::default() }, &cancel).unwrap();
    assert!(primary_only.primary.is_some() && primary_only.standby.is_none());
    let alone = find(&both[..1], search, &cancel).err().unwrap();
    assert_eq!(alone.message, "unable to find primary cluster - cannot proceed");
    both[0] = host(settings(&primary, 1));
    assert_eq!(find(&both, search, &cancel).err().unwrap().message, "more than one primary cluster found");

    standby.sql("select pg_promote()");
    assert_eq!(standby_session.ping(true).unwrap_err().code, ErrorCode::DbMismatch);
    standby.stop(Shutdown::Immediate);
}

#[test]
fn check_config_of_another_data_directory_is_db_mismatch() {
    let Some((primary, standby)) = pair() else { return };
    let crossed = PgSettings { path: standby.data(), ..settings(&primary, 1) };
    let session = PgSession::connect(&host(crossed), &CancelToken::new()).unwrap();
    let error = check_config(&session, None).unwrap_err();
    assert_eq!(error.code, ErrorCode::DbMismatch);
    assert_eq!(error.hints, ["the pg1-path and pg1-port settings likely reference different clusters."]);
}

/// Runs `stanza-create` against a server on a TCP port, with variables of PostgreSQL's client library.
fn connect_with(cluster: &Cluster, space: &Space, port: u16, variables: &[(&str, &str)]) -> Run {
    let mut command = space.command(space.path("bin/rbr"));
    for (option, value) in [
        ("repo1-path", space.text("repo")),
        ("pg1-path", cluster.data_text()),
        ("pg1-port", port.to_string()),
        ("pg1-user", "postgres".to_owned()),
        ("lock-path", space.text("lock")),
        ("log-level-file", "off".to_owned()),
        ("log-level-console", "info".to_owned()),
        ("config", "/dev/null".to_owned()),
    ] {
        command.arg(format!("--{option}={value}"));
    }
    command.args(["--stanza=demo", "stanza-create"]);
    for (name, value) in variables {
        command.env(name, value);
    }
    Run::of(command)
}

#[test]
fn ssl_mode_of_the_environment_decides_about_encryption_and_checks() {
    let Some(oracles) = oracles(&[15]) else { return };
    let space = Arc::new(Space::new());
    let others = Space::new();
    certificates(&space);
    certificates(&others);
    let port = free_ports(1);
    let mut settings = ARCHIVE_SETTINGS.map(str::to_owned).to_vec();
    settings.extend([
        "listen_addresses = '127.0.0.1'".to_owned(),
        format!("port = {port}"),
        "ssl = on".to_owned(),
        format!("ssl_cert_file = '{}'", space.text("tls/s.crt")),
        format!("ssl_key_file = '{}'", space.text("tls/s.key")),
    ]);
    let mut cluster = Cluster::create(&space, oracles, 15, "pg", &settings);
    let allow = |lines: &str| fs::write(space.path("pg/pg_hba.conf"), lines).unwrap();
    let (authority, other) = (space.text("tls/ca.crt"), others.text("tls/ca.crt"));
    allow("local all all trust\nhostssl all all all trust\nhostnossl all all all reject\n");
    cluster.start();
    let connect = |variables: &[(&str, &str)]| connect_with(&cluster, &space, port, variables);

    let port_text = port.to_string();
    let psql = |sql: &str| cluster.client("psql", &["-p", &port_text, "-d", "postgres", "-XAtqc", sql]);
    let admin = |sql: &str| {
        psql(sql).success();
    };
    let local = ("PGHOST", "127.0.0.1");
    connect(&[local, ("PGSSLMODE", "disable")]).fails(56).says("no encryption");
    // The default is `prefer`
    connect(&[local]).success();
    connect(&[local, ("PGSSLMODE", "allow")]).success();
    connect(&[local, ("PGSSLMODE", "require")]).success();
    connect(&[local, ("PGSSLMODE", "verify-ca")]).fails(56).says("root certificate file");
    let full = ("PGSSLMODE", "verify-full");
    connect(&[("PGHOST", "localhost"), full, ("PGSSLROOTCERT", &authority)]).success();
    connect(&[("PGHOST", "localhost"), full, ("PGSSLROOTCERT", &other)]).fails(56).says("certificate");
    // With a file of authorities, weaker modes check the certificate too
    connect(&[local, ("PGSSLMODE", "require"), ("PGSSLROOTCERT", &other)]).fails(56).says("certificate");
    let named = [("PGHOST", "db.invalid"), ("PGHOSTADDR", "127.0.0.1"), ("PGSSLROOTCERT", authority.as_str())];
    connect(&[&named[..], &[full]].concat()).fails(56).says("not valid for name");
    connect(&[&named[..], &[("PGSSLMODE", "verify-ca")]].concat()).success();
    // A list of hosts: the first has no server
    connect(&[("PGHOST", &format!("{},127.0.0.1", space.text("none"))), ("PGSSLMODE", "require")]).success();
    connect(&[local, ("PGSERVICE", "none")]).fails(56).says("definition of service \"none\" not found");
    connect(&[local, ("PGREQUIREAUTH", "none")]).fails(56).says("PGREQUIREAUTH");
    // A query that takes too long is cancelled at the address of the session, encrypted too
    let required = [("PGHOST", "localhost"), ("PGSSLMODE", "require"), ("PGBACKREST_DB_TIMEOUT", "1")];
    std::thread::scope(|scope| {
        let locked = "begin; lock table pg_catalog.pg_settings in access exclusive mode; select pg_sleep(60)";
        let holder = scope.spawn(move || psql(locked));
        let held = "from pg_locks where relation = 'pg_catalog.pg_settings'::regclass \
                    and mode = 'AccessExclusiveLock' and granted";
        while psql(&format!("select count(*) {held}")).success().stdout.trim() == "0" {
            assert!(!holder.is_finished(), "nobody holds the lock");
            std::thread::sleep(Duration::from_millis(20));
        }
        connect(&required).fails(56).says("timed out after 1000ms");
        // Until then, however slow the machine is
        assert!(!holder.is_finished(), "the lock was released too early");
        admin(&format!("select pg_terminate_backend(pid) {held}"));
    });
    assert!(cluster.log_text().contains("canceling statement due to user request"));

    allow("local all all trust\nhostssl all all all reject\nhostnossl all all all trust\n");
    admin("select pg_reload_conf()");
    connect(&[local]).success();
    connect(&[local, ("PGSSLMODE", "require")]).fails(56).says("SSL encryption");
    admin("alter system set ssl = off");
    admin("select pg_reload_conf()");
    connect(&[local, ("PGSSLMODE", "require")]).fails(56).says("does not support");
    connect(&[local]).success();
}

#[test]
fn client_certificate_service_and_revocation_list_count_as_for_psql() {
    let Some(oracles) = oracles(&[15]) else { return };
    let space = Arc::new(Space::new());
    certificates(&space);
    let at = |name: &str| space.text(&format!("tls/{name}"));
    let openssl = |line: &str| space.run("openssl", &line.split(' ').collect::<Vec<_>>()).success();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for user in ["postgres", "stranger"] {
        openssl(&format!("req {key} -subj /CN={user} -keyout {} -out {}", at(&format!("{user}.key")), at("c.csr")));
        let (authority, authority_key) = (at("ca.crt"), at("ca.key"));
        let certificate = at(&format!("{user}.crt"));
        openssl(&format!(
            "x509 -req -days 2 -in {} -CA {authority} -CAkey {authority_key} -CAcreateserial -out {certificate}",
            at("c.csr")
        ));
    }
    let folder = at("");
    space.write("tls/index.txt", "");
    space.write("tls/number", "01\n");
    space.write(
        "tls/ca.conf",
        format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase={folder}index.txt\ncrlnumber={folder}number\ndefault_md=sha256\n\
             default_crl_days=2\ncertificate={folder}ca.crt\nprivate_key={folder}ca.key\ncrl_extensions=e\n[e]\n\
             authorityKeyIdentifier=keyid:always\n"
        ),
    );
    openssl(&format!("ca -config {} -gencrl -out {}", at("ca.conf"), at("none.crl")));
    openssl(&format!("ca -config {} -revoke {}", at("ca.conf"), at("s.crt")));
    openssl(&format!("ca -config {} -gencrl -out {}", at("ca.conf"), at("server.crl")));

    let port = free_ports(1);
    let mut settings = ARCHIVE_SETTINGS.map(str::to_owned).to_vec();
    settings.extend(["listen_addresses = '127.0.0.1'".to_owned(), format!("port = {port}"), "ssl = on".to_owned()]);
    settings.extend([
        format!("ssl_cert_file = '{}'", at("s.crt")),
        format!("ssl_key_file = '{}'", at("s.key")),
        format!("ssl_ca_file = '{}'", at("ca.crt")),
    ]);
    let mut cluster = Cluster::create(&space, oracles, 15, "pg", &settings);
    fs::write(space.path("pg/pg_hba.conf"), "local all all trust\nhostssl all all all cert\n").unwrap();
    cluster.start();

    let port_text = port.to_string();
    // psql of the same variables has to agree
    let agree = |variables: &[(&str, &str)], may_connect: bool| {
        let mut psql = space.command("/usr/lib/postgresql/15/bin/psql");
        psql.args(["-p", &port_text, "-U", "postgres", "-d", "postgres", "-XAtqc", "select 1"]);
        psql.envs(variables.iter().copied());
        let theirs = Run::of(psql);
        assert_eq!(theirs.code == 0, may_connect, "{variables:?}: {}", theirs.describe());
        let ours = connect_with(&cluster, &space, port, variables);
        assert_eq!(ours.code, if may_connect { 0 } else { 56 }, "{variables:?}: {}", ours.describe());
    };
    let (local, full, root) = (("PGHOST", "127.0.0.1"), ("PGSSLMODE", "verify-full"), at("ca.crt"));
    let (certificate, key) = (at("postgres.crt"), at("postgres.key"));
    let own = [local, full, ("PGSSLROOTCERT", &root), ("PGSSLCERT", &certificate), ("PGSSLKEY", &key)];
    agree(&own, true);
    agree(&own[..3], false);
    let (other, other_key) = (at("stranger.crt"), at("stranger.key"));
    agree(&[own[0], own[1], own[2], ("PGSSLCERT", &other), ("PGSSLKEY", &other_key)], false);
    agree(&[own[0], own[1], own[2], own[3], ("PGSSLKEY", &other_key)], false);
    let (none, revoked) = (at("none.crl"), at("server.crl"));
    agree(&[&own[..], &[("PGSSLCRL", &none)]].concat(), true);
    agree(&[&own[..], &[("PGSSLCRL", &revoked)]].concat(), false);
    let hash = openssl(&format!("crl -hash -noout -in {none}")).stdout;
    for (folder, list) in [("lists-none", Some(&none)), ("lists-revoked", Some(&revoked)), ("lists-empty", None)] {
        space.folder(&format!("tls/{folder}"));
        if let Some(list) = list {
            fs::copy(list, space.path(&format!("tls/{folder}/{}.r0", hash.trim()))).unwrap();
        }
        agree(&[&own[..], &[("PGSSLCRLDIR", &at(folder))]].concat(), folder == "lists-none");
    }
    // psql 15 does not know this variable
    connect_with(&cluster, &space, port, &[&own[..], &[("PGSSLCERTMODE", "disable")]].concat()).fails(56);
    let services = format!(
        "[main]\nhost=127.0.0.1\nsslmode=verify-full\nsslrootcert={root}\nsslcert={certificate}\nsslkey={key}\n\
         [elsewhere]\nhost=192.0.2.1\nhostaddr=127.0.0.1\nsslmode=verify-full\nsslrootcert={root}\n"
    );
    space.write("services", &services);
    let file = ("PGSERVICEFILE", space.text("services"));
    let file = (file.0, file.1.as_str());
    agree(&[("PGSERVICE", "main"), file, ("PGHOST", "192.0.2.1")], true);
    agree(&[("PGSERVICE", "elsewhere"), file, own[3], own[4]], false);
    agree(&[("PGSERVICE", "none"), file, local], false);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    agree(&own, false);
}

#[test]
fn channel_binding_and_kind_of_session_count_as_for_psql() {
    let Some(oracles) = oracles(&[15]) else { return };
    let space = Arc::new(Space::new());
    certificates(&space);
    let port = free_ports(1);
    let mut settings = ARCHIVE_SETTINGS.map(str::to_owned).to_vec();
    settings.extend([
        "listen_addresses = '127.0.0.1'".to_owned(),
        format!("port = {port}"),
        "ssl = on".to_owned(),
        format!("ssl_cert_file = '{}'", space.text("tls/s.crt")),
        format!("ssl_key_file = '{}'", space.text("tls/s.key")),
    ]);
    let mut cluster = Cluster::create(&space, oracles, 15, "pg", &settings);
    let allow = |method: &str| {
        fs::write(space.path("pg/pg_hba.conf"), format!("local all all trust\nhost all all all {method}\n")).unwrap();
    };
    allow("scram-sha-256");
    cluster.start();
    let port_text = port.to_string();
    let admin = |sql: &str| {
        cluster.client("psql", &["-p", &port_text, "-d", "postgres", "-XAtqc", sql]).success();
    };
    admin("alter role postgres password 'secret'");
    let common = [("PGHOST", "127.0.0.1"), ("PGPASSWORD", "secret")];
    // psql of the same variables has to agree
    let agree = |variables: &[(&str, &str)], may_connect: bool| {
        let variables = [&common[..], variables].concat();
        let mut psql = space.command("/usr/lib/postgresql/15/bin/psql");
        psql.args(["-p", &port_text, "-U", "postgres", "-d", "postgres", "-XAtqc", "select 1"]);
        psql.envs(variables.iter().copied());
        let theirs = Run::of(psql);
        assert_eq!(theirs.code == 0, may_connect, "{variables:?}: {}", theirs.describe());
        let ours = connect_with(&cluster, &space, port, &variables);
        assert_eq!(ours.code, if may_connect { 0 } else { 56 }, "{variables:?}: {}", ours.describe());
    };
    let required = ("PGCHANNELBINDING", "require");
    agree(&[required], true);
    agree(&[required, ("PGSSLMODE", "require")], true);
    agree(&[required, ("PGSSLMODE", "disable")], false);
    agree(&[("PGCHANNELBINDING", "disable")], true);
    agree(&[("PGCHANNELBINDING", "always")], false);
    for (word, may_connect) in [
        ("any", true),
        ("read-write", true),
        ("read-only", false),
        ("primary", true),
        ("standby", false),
        ("prefer-standby", true),
        ("secondary", false),
    ] {
        agree(&[("PGTARGETSESSIONATTRS", word)], may_connect);
    }
    admin("alter system set default_transaction_read_only = on");
    // A certificate that is signed with another hash
    let (key, certificate) = (space.text("tls/rsa.key"), space.text("tls/rsa.crt"));
    let request = format!("req -x509 -newkey rsa:2048 -nodes -sha384 -subj /CN=db -keyout {key} -out {certificate}");
    space.run("openssl", &request.split(' ').collect::<Vec<_>>()).success();
    admin(&format!("alter system set ssl_cert_file = '{certificate}'"));
    admin(&format!("alter system set ssl_key_file = '{key}'"));
    admin("select pg_reload_conf()");
    agree(&[required], true);
    agree(&[("PGTARGETSESSIONATTRS", "read-write")], false);
    agree(&[("PGTARGETSESSIONATTRS", "read-only")], true);
    allow("trust");
    admin("select pg_reload_conf()");
    agree(&[required], false);
    agree(&[("PGCHANNELBINDING", "prefer")], true);
}

#[test]
fn encryption_without_a_request_reaches_servers_that_support_it() {
    let Some(oracles) = oracles(&[15, 18]) else { return };
    for (version, supported) in [(15, false), (18, true)] {
        let space = Arc::new(Space::new());
        certificates(&space);
        let port = free_ports(1);
        let mut settings = ARCHIVE_SETTINGS.map(str::to_owned).to_vec();
        settings.extend([
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {port}"),
            "ssl = on".to_owned(),
            format!("ssl_cert_file = '{}'", space.text("tls/s.crt")),
            format!("ssl_key_file = '{}'", space.text("tls/s.key")),
        ]);
        let mut cluster = Cluster::create(&space, oracles, version, "pg", &settings);
        fs::write(space.path("pg/pg_hba.conf"), "local all all trust\nhostssl all all all trust\n").unwrap();
        cluster.start();
        let direct = [("PGHOST", "127.0.0.1"), ("PGSSLMODE", "require"), ("PGSSLNEGOTIATION", "direct")];
        connect_with(&cluster, &space, port, &direct).fails(if supported { 0 } else { 56 });
        connect_with(&cluster, &space, port, &[direct[0], direct[2]]).fails(56).says("sslnegotiation=direct");
    }
}

#[test]
fn timeouts_set_for_the_role_do_not_end_the_session() {
    for version in [13, 15, 18] {
        let Some(cluster) = cluster(version) else { return };
        let settable = "('idle_session_timeout', 'idle_in_transaction_session_timeout', 'statement_timeout', \
                        'lock_timeout', 'transaction_timeout')";
        let names = cluster.sql(&format!("select name from pg_settings where name in {settable} order by 1"));
        for name in names.lines() {
            cluster.sql(&format!("alter role postgres set {name} = '1h'"));
        }
        let mut client = connect(&cluster);
        let count = format!("select count(*) from pg_settings where name in {settable} and setting <> '0'");
        assert_eq!(client.value(&count).unwrap(), names.lines().count().to_string());
        client.rows::<1>(NO_TIMEOUTS).unwrap();
        assert_eq!(client.value(&count).unwrap(), "0", "{version}");
    }
}

#[test]
fn idle_session_timeout_does_not_end_a_backup_session() {
    let Some(cluster) = cluster(15) else { return };
    cluster.sql("alter role postgres set idle_session_timeout = '2s'");
    let mut session = PgSession::connect(&host(settings(&cluster, 1)), &CancelToken::new()).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    session.ping(true).unwrap();
}
