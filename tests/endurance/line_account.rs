//! Counts every line that the daemon wrote into its log directory, independent of changes to the
//! directory.
//!
//! Each file gets a second name in another directory on the same disk as soon as it is found, so
//! that it can be counted after the daemon's name for it is removed. A directory is moved before it
//! is removed, so that later files of the daemon are in another one.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::configuration::FORBIDDEN;

/// Account of the files.
pub struct LineAccount {
    disk: PathBuf,
    seen: HashSet<u64>,
    moved: u64,
    /// Number of records counted and removed, and problems with them.
    pub records: u64,
    pub broken: Vec<String>,
    /// Files without the daemon's name, and the number of checks since.
    dead: Vec<(PathBuf, u32)>,
}

impl LineAccount {
    /// Opens the account of the directory `logs` on a disk.
    pub fn open(disk: &Path) -> Self {
        fs::create_dir_all(disk.join("graveyard")).unwrap();
        fs::create_dir_all(disk.join("logs")).unwrap();
        Self {
            disk: disk.to_owned(),
            seen: HashSet::new(),
            moved: 0,
            records: 0,
            broken: Vec::new(),
            dead: Vec::new(),
        }
    }

    fn logs(&self) -> PathBuf {
        self.disk.join("logs")
    }

    /// Must be called once a second. Finds new files, and counts those that are no longer written.
    pub fn look(&mut self) {
        self.note(&self.logs());
        let graves = fs::read_dir(self.disk.join("graveyard")).unwrap();
        for path in graves.map(|entry| entry.unwrap().path()) {
            let alone = fs::metadata(&path).unwrap().nlink() == 1;
            if alone && !self.dead.iter().any(|(dead, _)| *dead == path) {
                self.dead.push((path, 0));
            }
        }
        // The daemon notices within about a second that a file has lost its name.
        for (path, looks) in std::mem::take(&mut self.dead) {
            if looks > 30 {
                self.count(&path);
                fs::remove_file(path).unwrap();
            } else {
                self.dead.push((path, looks + 1));
            }
        }
    }

    /// Removes the directory with its files.
    pub fn remove_logs(&mut self) {
        let away = self.move_logs();
        fs::remove_dir_all(away).unwrap();
    }

    /// Puts a file in place of the directory.
    pub fn obstruct(&mut self) {
        let away = self.move_logs();
        // The daemon may have created it again meanwhile.
        while fs::File::create_new(self.logs()).is_err() {
            let again = self.move_logs();
            fs::remove_dir_all(again).unwrap();
        }
        fs::remove_dir_all(away).unwrap();
    }

    /// Removes the file again.
    pub fn unobstruct(&self) {
        fs::remove_file(self.logs()).unwrap();
    }

    fn move_logs(&mut self) -> PathBuf {
        self.moved += 1;
        let away = self.disk.join(format!("away-{}", self.moved));
        if fs::rename(self.logs(), &away).is_err() {
            // It was not created again since the last time.
            fs::create_dir(&away).unwrap();
        }
        self.note(&away);
        away
    }

    fn note(&mut self, directory: &Path) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let inode = fs::metadata(&path).unwrap().ino();
            if self.seen.insert(inode) {
                let name = path.file_name().unwrap().to_str().unwrap();
                fs::hard_link(&path, self.disk.join("graveyard").join(format!("{inode}-{name}"))).unwrap();
            }
        }
    }

    /// Counts the remaining files, after the daemon has ended.
    pub fn close(&mut self) {
        self.note(&self.logs());
        let graves = fs::read_dir(self.disk.join("graveyard")).unwrap();
        for path in graves.map(|entry| entry.unwrap().path()) {
            self.count(&path);
        }
    }

    fn count(&mut self, path: &Path) {
        // Inodes are reused.
        self.seen.remove(&fs::metadata(path).unwrap().ino());
        let holds_records = path.to_str().unwrap().contains("results.jsonl");
        for line in BufReader::new(fs::File::open(path).unwrap()).split(b'\n') {
            let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
            check(&mut self.broken, "a file", &line);
            if !holds_records {
                continue;
            }
            // A line truncated by a full disk is no record, and was counted as failed.
            match serde_json::from_str::<Value>(&line) {
                Ok(_) => self.records += 1,
                Err(_) if line.is_empty() => {}
                Err(_) => self.torn(&line),
            }
        }
    }

    fn torn(&mut self, line: &str) {
        if !line.starts_with("{\"time\":") && !"{\"time\":".starts_with(line) {
            self.broken.push(format!("what is no record's beginning: {line:.100}"));
        }
    }
}

/// Records text that no output may contain.
pub fn check(broken: &mut Vec<String>, what: &str, text: &str) {
    for word in FORBIDDEN.iter().chain(&["panicked at"]) {
        if text.contains(word) {
            let line = text.lines().find(|line| line.contains(word)).unwrap_or_default();
            broken.push(format!("{what} has {word:?}: {line:.300}"));
        }
    }
}
