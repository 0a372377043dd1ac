//! Every line that the daemon ever wrote into its directory of logs, whatever became of the directory.
//!
//! Each file gets a second name in a graveyard on the same disk as soon as it is seen, so that it is still there to be
//! counted when the daemon's name for it is gone. A directory is moved before it is removed: what the daemon begins from
//! then on is in another.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::configuration::FORBIDDEN;

/// The account of the files.
pub struct Books {
    disk: PathBuf,
    seen: HashSet<u64>,
    moved: u64,
    /// Records that were counted and removed since, and what is wrong with them.
    pub records: u64,
    pub broken: Vec<String>,
    /// Files without the daemon's name, and at how many looks they were so.
    dead: Vec<(PathBuf, u32)>,
}

impl Books {
    /// Of the directory `logs` on a disk.
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

    /// To be called once a second: notes new files, counts those that nobody writes to any more.
    pub fn look(&mut self) {
        self.note(&self.logs());
        let graves = fs::read_dir(self.disk.join("graveyard")).unwrap();
        for path in graves.map(|entry| entry.unwrap().path()) {
            let alone = fs::metadata(&path).unwrap().nlink() == 1;
            if alone && !self.dead.iter().any(|(dead, _)| *dead == path) {
                self.dead.push((path, 0));
            }
        }
        // The daemon finds within a second or so that a file has lost its name.
        for (path, looks) in std::mem::take(&mut self.dead) {
            if looks > 30 {
                self.count(&path);
                fs::remove_file(path).unwrap();
            } else {
                self.dead.push((path, looks + 1));
            }
        }
    }

    /// Takes the directory away, with its files.
    pub fn remove_logs(&mut self) {
        let away = self.move_logs();
        fs::remove_dir_all(away).unwrap();
    }

    /// Puts a file in the place of the directory.
    pub fn obstruct(&mut self) {
        let away = self.move_logs();
        // The daemon may have made it again meanwhile.
        while fs::File::create_new(self.logs()).is_err() {
            let again = self.move_logs();
            fs::remove_dir_all(again).unwrap();
        }
        fs::remove_dir_all(away).unwrap();
    }

    /// Takes the file away again.
    pub fn unobstruct(&self) {
        fs::remove_file(self.logs()).unwrap();
    }

    fn move_logs(&mut self) -> PathBuf {
        self.moved += 1;
        let away = self.disk.join(format!("away-{}", self.moved));
        if fs::rename(self.logs(), &away).is_err() {
            // It was not made again since the last time.
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

    /// Counts all that is left. The daemon has ended.
    pub fn close(&mut self) {
        self.note(&self.logs());
        let graves = fs::read_dir(self.disk.join("graveyard")).unwrap();
        for path in graves.map(|entry| entry.unwrap().path()) {
            self.count(&path);
        }
    }

    fn count(&mut self, path: &Path) {
        // Inodes are used again.
        self.seen.remove(&fs::metadata(path).unwrap().ino());
        let holds_records = path.to_str().unwrap().contains("results.jsonl");
        for line in BufReader::new(fs::File::open(path).unwrap()).split(b'\n') {
            let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
            check(&mut self.broken, "a file", &line);
            if !holds_records {
                continue;
            }
            // What a full disk has cut is no record, and was counted as one that failed.
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

/// Notes what no output may have.
pub fn check(broken: &mut Vec<String>, what: &str, text: &str) {
    for word in FORBIDDEN.iter().chain(&["panicked at"]) {
        if text.contains(word) {
            let line = text.lines().find(|line| line.contains(word)).unwrap_or_default();
            broken.push(format!("{what} has {word:?}: {line:.300}"));
        }
    }
}
