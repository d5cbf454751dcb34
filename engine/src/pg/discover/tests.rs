//! A host is a temporary directory with a `proc` of its own.

use super::*;

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Host(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn cluster(&self, data: &str, version: &str) {
        self.write(&format!("{data}/PG_VERSION"), &format!("{version}\n"));
        self.write(&format!("{data}/global/pg_control"), "control");
    }

    fn start(&self, data: &str, pid: u32, port: u16) {
        let path = self.path(data);
        self.write(
            &format!("{data}/postmaster.pid"),
            &format!("{pid}\n{}\n1700000000\n{port}\n/run/pg\nlocalhost\n  5 6\nready\n", path.display()),
        );
        fs::create_dir_all(self.path(&format!("proc/{pid}"))).unwrap();
        std::os::unix::fs::symlink(path, self.path(&format!("proc/{pid}/cwd"))).unwrap();
    }

    fn request(&self) -> DiscoverRequest {
        DiscoverRequest { root: self.path(""), pgdata: None }
    }

    fn found(&self) -> Vec<(PathBuf, String, Option<u16>)> {
        let port = |cluster: &FoundCluster| cluster.running.as_ref().map(|server| server.port);
        self.request().find().iter().map(|found| (found.data.clone(), found.version.clone(), port(found))).collect()
    }
}

#[test]
fn clusters_at_the_usual_places_are_found_once_and_running_ones_first() {
    let host = Host::new();
    host.cluster("var/lib/postgresql/15/main", "15");
    host.cluster("var/lib/pgsql/17/data", "17");
    host.cluster("srv/elsewhere", "18");
    host.start("srv/elsewhere", 77, 5433);
    // Found by its place and by its process
    host.start("var/lib/pgsql/17/data", 99, 5432);
    let [elsewhere, rhel, debian] =
        ["srv/elsewhere", "var/lib/pgsql/17/data", "var/lib/postgresql/15/main"].map(|name| host.path(name));
    assert_eq!(
        host.found(),
        [
            (elsewhere, "18".to_owned(), Some(5433)),
            (rhel, "17".to_owned(), Some(5432)),
            (debian, "15".to_owned(), None)
        ]
    );
}

#[test]
fn server_that_is_gone_is_not_running() {
    let host = Host::new();
    host.cluster("var/lib/pgsql/data", "16");
    host.start("var/lib/pgsql/data", 99, 5432);
    fs::remove_dir_all(host.path("proc/99")).unwrap();
    assert_eq!(host.found(), [(host.path("var/lib/pgsql/data"), "16".to_owned(), None)]);
    // Another process got the number
    fs::create_dir_all(host.path("proc/99")).unwrap();
    std::os::unix::fs::symlink("/", host.path("proc/99/cwd")).unwrap();
    assert_eq!(host.found()[0].2, None);
}

#[test]
fn socket_lock_and_pgdata_lead_to_clusters() {
    let host = Host::new();
    host.cluster("srv/a", "14");
    host.cluster("srv/b", "13");
    host.write("tmp/.s.PGSQL.5432.lock", &format!("5\n{}\n", host.path("srv/a").display()));
    let request = DiscoverRequest { pgdata: Some(host.path("srv/b")), ..host.request() };
    let data: Vec<_> = request.find().into_iter().map(|found| found.data).collect();
    assert_eq!(data, [host.path("srv/a"), host.path("srv/b")]);
}

#[test]
fn directory_without_control_file_is_no_cluster() {
    let host = Host::new();
    host.write("var/lib/postgresql/15/main/PG_VERSION", "15\n");
    // What is no version is not shown
    host.cluster("var/lib/postgresql/16/main", "root:x:0");
    assert_eq!(host.found(), []);
    assert_eq!(host.request().at(&host.path("nowhere")), None);
}

#[test]
fn usual_place_is_one_of_a_distribution() {
    let host = Host::new();
    host.cluster("var/lib/postgresql/15/main", "15");
    host.cluster("srv/a", "15");
    assert!(host.request().is_usual(&host.path("var/lib/postgresql/15/main")));
    assert!(!host.request().is_usual(&host.path("srv/a")));
}

#[test]
fn size_includes_tablespaces_but_no_other_links() {
    let host = Host::new();
    host.write("data/base/1", "12345");
    host.write("space/PG_17/1", "123");
    host.write("other/file", "1");
    fs::create_dir_all(host.path("data/pg_tblspc")).unwrap();
    std::os::unix::fs::symlink(host.path("space"), host.path("data/pg_tblspc/16400")).unwrap();
    std::os::unix::fs::symlink(host.path("other"), host.path("data/base/link")).unwrap();
    let size = measure(&host.path("data"), Duration::from_secs(60));
    assert_eq!(size, MeasuredSize { bytes: 8, complete: true });
    assert!(!measure(&host.path("data"), Duration::ZERO).complete);
}
