//! The configurations in the manifests of Kubernetes.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::project;
use crate::env::network::free_ports;
use crate::env::oracle::optional_oracle;
use crate::env::{Authority, Cluster, Run, Space, Weed, oracles, weed};

/// The objects of a manifest; `None` if the test has to be skipped.
fn objects(manifest: &str) -> Option<Vec<Value>> {
    let packages = optional_oracle("kubernetes")?;
    let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)";
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages).args(["-c", script]).arg(project().join("contrib/kubernetes").join(manifest));
    Some(Run::of(python).success().json().as_array().expect("objects").clone())
}

/// The file `pgbackrest.conf` of a ConfigMap.
fn configuration(objects: &[Value], name: &str) -> String {
    let map = objects.iter().find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name);
    map.expect("ConfigMap")["data"]["pgbackrest.conf"].as_str().expect("pgbackrest.conf").to_owned()
}

#[test]
fn cron_jobs_back_up_over_the_network() {
    let (Some(objects), Some(oracles), Some(weed)) = (objects("cronjob.yaml"), oracles(&[17]), Weed::start()) else {
        return;
    };
    let space = Arc::new(Space::new());
    Authority::new(&space, "ca").issue("server", "localhost", "DNS:localhost").issue("client", "rbr-backup", "");
    let port = free_ports(1);
    let (server, client) = ("server.conf", "client.conf");
    let config = format!("--config={} --stanza=main", space.text("pg.conf"));
    let archive = format!(
        "archive_command = 'env $(cat {}) {} {config} archive-push %p'",
        space.text("keys"),
        space.text("bin/rbr")
    );
    let settings = ["archive_mode = on".to_owned(), archive];
    let mut cluster = Cluster::create(&space, oracles, 17, "pg", &settings);

    // What the manifest leaves to its user, and what a pod has of its own
    let (lock, ca, bucket) = (space.text("lock"), weed.file("tls/ca.crt"), weed::BUCKET);
    let of_host = |text: String, identity: &str| {
        text.replace(
            "repo1-s3-bucket=backups",
            &format!("repo1-s3-bucket={bucket}\nrepo1-storage-ca-file={}", ca.display()),
        )
        .replace("s3.eu-central-1.amazonaws.com", "127.0.0.1")
        .replace(
            "repo1-s3-region=eu-central-1",
            &format!("repo1-s3-region=us-east-1\nrepo1-s3-uri-style=path\nrepo1-storage-port={}", weed.port()),
        )
        .replace("/etc/rbr/tls/ca.crt", &space.text("tls/ca.crt"))
        .replace("/etc/rbr/tls/tls", &space.text(&format!("tls/{identity}")))
        .replace("/var/lib/postgresql/data/pgdata", &cluster.data_text())
        .replace("postgres-0.postgres", "localhost")
        .replace("pg1-host-type=tls", &format!("pg1-host-type=tls\npg1-host-port={port}"))
        .replace("tls-server-address=*", &format!("tls-server-address=127.0.0.1\ntls-server-port={port}"))
        .replace("log-level-file=off", &format!("log-level-file=off\nlock-path={lock}-{identity}"))
    };
    let socket = format!("pg1-socket-path={}\n", cluster.socket());
    space.write(server, of_host(configuration(&objects, "rbr-server"), "server") + &socket + "pg1-user=postgres\n");
    space.write("pg.conf", of_host(configuration(&objects, "rbr"), "pg"));
    space.write(client, of_host(configuration(&objects, "rbr-backup"), "client"));
    let (key, secret) = weed::KEY;
    let secrets = [
        ("PGBACKREST_REPO1_S3_KEY", key),
        ("PGBACKREST_REPO1_S3_KEY_SECRET", secret),
        ("PGBACKREST_REPO1_CIPHER_PASS", "passphrase-of-the-test"),
    ];
    space.write("keys", secrets.map(|(name, value)| format!("{name}={value}")).join(" "));
    cluster.start();
    // As in the manifest, the server has none of the secrets
    let _served =
        space.start(space.path("bin/rbr"), &[format!("--config={}", space.text(server)), "server".to_owned()]);

    let run = |arguments: &[&str]| {
        let mut job = space.command("timeout");
        job.args(["--kill-after=5", "120"]).arg(space.path("bin/rbr")).arg(format!("--config={}", space.text(client)));
        job.args(arguments).envs(secrets);
        Run::of(job)
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < end, "the server does not listen");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // The containers of the jobs, as the manifest has them
    for job in objects.iter().filter(|object| object["kind"] == "CronJob") {
        let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        let containers = ["initContainers", "containers"].into_iter().filter_map(|kind| pod[kind].as_array()).flatten();
        for container in containers {
            let arguments: Vec<&str> = container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            run(&arguments).success();
        }
    }
    let info = run(&["--stanza=main", "info"]).success();
    info.clone().says("status: ok").says("full backup: ").says("diff backup: ").says("cipher: aes-256-cbc");
}

#[test]
fn every_configuration_is_accepted() {
    let space = Space::new();
    let dir = project().join("contrib/kubernetes");
    let mut count = 0;
    for entry in dir.read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".yaml") {
            continue;
        }
        let Some(objects) = objects(&name) else { return };
        for object in objects.iter().filter(|object| object["kind"] == "ConfigMap") {
            let Some(text) = object["data"]["pgbackrest.conf"].as_str() else { continue };
            space.write("c.conf", text);
            let mut get = space.command(space.path("bin/rbr"));
            get.arg(format!("--config={}", space.text("c.conf"))).args(["--stanza=main", "--report", "check"]);
            for secret in ["S3_KEY", "S3_KEY_SECRET", "CIPHER_PASS"] {
                get.envs([1, 2].map(|key| (format!("PGBACKREST_REPO{key}_{secret}"), "secret")));
            }
            Run::of(get).success().never_says("WARN").says("\"main\"");
            count += 1;
        }
        // A manifest names only programs and commands that exist
        assert!(fs::read_to_string(dir.join(&name)).unwrap().contains("rbr"), "{name}");
    }
    assert!(count >= 5, "{count}");
}
