//! A child process with its output in a file, killed when it is dropped.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::folder::Folder;
use crate::wait::{PATIENCE, wait_for};

/// A running program. It has a temporary folder, which is its working directory.
#[derive(Debug)]
pub struct Process {
    child: Child,
    folder: Folder,
}

impl Process {
    /// Starts a program, without the variables of this process that would configure a gateway.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(program: &Path, arguments: &[&str], env: &[(String, String)]) -> Self {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        Self::start_in(Folder::new(), program, &arguments, env)
    }

    pub(super) fn start_in(
        folder: Folder,
        program: &Path,
        arguments: &[OsString],
        env: &[(String, String)],
    ) -> Self {
        let log = File::create(folder.file("log")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments);
        let configures = |name: &str| name.starts_with("OLLA_") || name.starts_with("SSL_CERT_");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(configures) {
                command.env_remove(name);
            }
        }
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { child, folder }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What it has written to standard output and standard error.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.file("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a line of output with all of these strings and returns it.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`].
    #[track_caller]
    pub fn wait_line(&self, strings: &[&str]) -> String {
        wait_for(&format!("{strings:?} in the log"), PATIENCE, || {
            let log = self.log();
            let has_all = |line: &&str| strings.iter().all(|string| line.contains(string));
            // The last line may be incomplete.
            let mut lines = log
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            lines.find(has_all).map(|line| line.trim_end().to_owned())
        })
    }

    /// Sends a signal, by its name without `SIG`.
    ///
    /// # Panics
    /// When it cannot be sent.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let line = format!("kill -s {name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end `within` the time limit.
    #[track_caller]
    pub fn wait_end(&mut self, within: Duration) -> ExitStatus {
        wait_for("the end of the program", within, || self.ended())
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            // The message of a panic comes before its long backtrace.
            let panics = log.lines().skip_while(|line| !line.contains("panicked at"));
            let tail = log.lines().rev().take(8).collect::<Vec<_>>();
            for line in panics.take(3).chain(tail.into_iter().rev()) {
                println!("log: {line}");
            }
        }
    }
}
