//! A throw-away folder for one test.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::command::{Background, Run, TIME_LIMIT_S};
use super::user::User;

/// The file system in memory, and the free space that tests require there: more than concurrent tests have used.
const MEMORY: &str = "/dev/shm";
const MEMORY_MIN: u64 = 4 << 30;

/// The folder of one test, owned by the test user and removed at the end.
///
/// Its path is short (`/tmp/rbr-XXXXXX`), because it contains the sockets of servers, whose paths are limited to 107
/// bytes.
pub struct Space {
    root: PathBuf,
    user: &'static User,
    keep: bool,
}

impl Space {
    /// Creates the folder with the usual subfolders (`repo`, `log`, `lock`, `spool`) and a copy of the program under
    /// test, which the test user can run wherever the sources are.
    ///
    /// The folder is in memory if there is room, unless `TMPDIR` is set: tests create, sync and remove files by the
    /// hundred thousand, which takes most of their time on a disk.
    pub fn new() -> Self {
        match env::var_os("TMPDIR").is_none() && has_room(Path::new(MEMORY)) {
            true => Self::below(Path::new(MEMORY)),
            false => Self::on_disk(),
        }
    }

    /// Creates the folder in the system's folder for temporary files, for measurements and for what differs between
    /// disk and memory.
    pub fn on_disk() -> Self {
        Self::below(&env::temp_dir())
    }

    fn below(folder: &Path) -> Self {
        let user = User::for_tests();
        let folder = tempfile::Builder::new().prefix("rbr-").tempdir_in(folder).expect("temporary folder");
        let space = Self { root: folder.keep(), user, keep: env::var_os("RBR_TEST_KEEP").is_some() };
        fs::set_permissions(&space.root, fs::Permissions::from_mode(0o755)).expect("chmod");
        user.own(&space.root);
        for name in ["repo", "log", "lock", "spool", "bin"] {
            space.folder(name);
        }
        let program = space.path("bin/rbr");
        if let Some(other) = env::var_os("RBR_TEST_PROGRAM") {
            // Another program instead of rbr, usually the real pgBackRest: a failure is a mistake of the tests
            std::os::unix::fs::symlink(other, &program).expect("link to RBR_TEST_PROGRAM");
        } else if fs::hard_link(env!("CARGO_BIN_EXE_rbr"), &program).is_err() {
            // Copied by another process: a file that is open for writing in this process would also be open in every
            // process that another test starts meanwhile, and could not be executed
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_rbr")).arg(&program).status();
            assert!(copied.expect("cp").success(), "copy the program under test");
        }
        space
    }

    /// The path of `name` in this folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The same as text, for configuration files and arguments.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// The user everything here belongs to.
    pub fn user(&self) -> &'static User {
        self.user
    }

    /// Creates a folder and returns its path. An existing folder stays unchanged.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        if !path.is_dir() {
            fs::create_dir_all(&path).expect("create folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("chmod");
            self.user.own(&path);
        }
        path
    }

    /// Writes a file that belongs to the test user.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("write file");
        self.user.own(&path);
        path
    }

    /// Writes a script that can be run.
    pub fn write_program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.write(name, script);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        path
    }

    /// Returns a command that runs as the test user, in this folder, with a clean environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(&self.root)
            .env_clear()
            .env("HOME", &self.root)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        self.user.apply(&mut command);
        command
    }

    /// Runs `program` to its end, or kills it after [`TIME_LIMIT_S`].
    pub fn run<S: AsRef<str>>(&self, program: impl AsRef<Path>, arguments: &[S]) -> Run {
        let mut command = self.command("timeout");
        command.args(["--kill-after=5", &TIME_LIMIT_S.to_string()]).arg(program.as_ref());
        command.args(arguments.iter().map(AsRef::as_ref));
        Run::of(command)
    }

    /// Starts `program` and returns at once.
    pub fn start<S: AsRef<str>>(&self, program: impl AsRef<Path>, arguments: &[S]) -> Background {
        self.start_with_log("background", program, arguments)
    }

    /// The same with an output file of its own (`log/NAME.log`), for a program that runs beside another.
    pub fn start_with_log<S: AsRef<str>>(&self, name: &str, program: impl AsRef<Path>, arguments: &[S]) -> Background {
        let mut command = self.command(program);
        command.args(arguments.iter().map(AsRef::as_ref));
        Background::of(command, self.path(&format!("log/{name}.log")))
    }

    /// Copies a folder with its content, like `cp -a`.
    pub fn copy(&self, from: &str, to: &str) -> PathBuf {
        self.run("cp", &["-a", "--reflink=auto", &self.text(from), &self.text(to)]).success();
        self.path(to)
    }
}

/// Returns whether programs can run in `folder`, and whether folder and machine have enough free memory.
fn has_room(folder: &Path) -> bool {
    let free = statvfs(folder).is_ok_and(|stat| {
        !stat.f_flag.contains(StatVfsMountFlags::NOEXEC) && stat.f_bavail * stat.f_frsize >= MEMORY_MIN
    });
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = machine.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    free && available.and_then(|kib| kib.parse::<u64>().ok()).is_some_and(|kib| kib << 10 >= MEMORY_MIN)
}

impl Drop for Space {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() && env::var_os("RBR_TEST_KEEP_FAILED").is_some() {
            eprintln!("kept {}", self.root.display());
        } else if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("could not remove {}: {error}", self.root.display());
        }
    }
}
