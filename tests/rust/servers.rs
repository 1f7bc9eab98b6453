//! Servers of a test's own, to be stopped, killed and misused.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use crate::stores::server;

/// Servers that end with this.
pub(crate) struct Servers {
    child: Child,
    variables: HashMap<String, String>,
}

impl Servers {
    /// Starts the servers that go by this name in `tests/services.py`; `None` if there is none to
    /// test with, as `variable` tells.
    pub(crate) fn start(name: &str, variable: &str) -> Option<Self> {
        server(variable)?;
        let python = std::env::var_os("TEST_PYTHON").unwrap_or("python3".into());
        let mut command = Command::new(python);
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services.py"))
            .args(["serve", "--only", name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // What is named there is taken as it is.
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(|variable| variable.starts_with("TEST_")) {
                command.env_remove(variable);
            }
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut servers = Self { child, variables: HashMap::new() };
        // The process ids come last.
        let wanted = [variable.to_owned(), variable.replace("_URL", "_PIDS")];
        for line in lines {
            let line = line.unwrap();
            let (name, value) = line.strip_prefix("export ").unwrap().split_once('=').unwrap();
            servers.variables.insert(name.to_owned(), value.to_owned());
            if wanted.iter().all(|name| servers.variables.contains_key(name)) {
                return Some(servers);
            }
        }
        // It has ended.
        let mut told = String::new();
        servers.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        panic!("tests/services.py could not start {name}: {told}");
    }

    pub(crate) fn url(&self, variable: &str) -> &str {
        &self.variables[variable]
    }

    /// Process id and port of each server.
    pub(crate) fn processes(&self, variable: &str) -> Vec<(u32, u16)> {
        let pids = self.variables[&variable.replace("_URL", "_PIDS")].split(',');
        pids.map(|pair| {
            let (pid, port) = pair.split_once(':').unwrap();
            (pid.parse().unwrap(), port.parse().unwrap())
        })
        .collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        signal("TERM", self.child.id());
        self.child.wait().unwrap();
    }
}

/// Sends a signal to a process that we have started, or the servers of the tests.
pub(crate) fn signal(name: &str, pid: u32) {
    let done = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(done.unwrap().success(), "kill -{name} {pid}");
}

/// A process that is stopped until this ends.
pub(crate) struct Stopped(u32);

impl Stopped {
    pub(crate) fn new(pid: u32) -> Self {
        signal("STOP", pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("CONT", self.0);
    }
}
