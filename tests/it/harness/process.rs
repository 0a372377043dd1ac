//! A child process whose standard error is read continuously. It is killed when it is dropped.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::wait_for;

pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let reader = Some(follow(child.stderr.take().unwrap(), log.clone()));
        Self { child, log, reader }
    }

    /// Returns the complete lines on standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for something in the log, which may be the last line of the process.
    #[track_caller]
    pub fn logs<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        wait_for(what, || {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() {
                self.read_to_the_end();
            }
            let log = self.log();
            let found = find(&log);
            let waiting = found.is_some() || ended.is_none();
            assert!(waiting, "it ended with {ended:?} while the test waited for {what}:\n{log}");
            found
        })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end of the process. Returns the complete log.
    #[track_caller]
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let status = wait_for("the process to end", || self.child.try_wait().unwrap());
        self.read_to_the_end();
        (status, self.log())
    }

    fn read_to_the_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(stderr: ChildStderr, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).unwrap() > 0 {
            log.lock().unwrap().push_str(str::from_utf8(&line).unwrap());
            line.clear();
        }
    })
}
