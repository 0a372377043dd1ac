//! The state file: versioned JSON, replaced atomically, and validated when it is read.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::{Timestamp, civil::Date};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::outcome::{Check, Subject};

/// Name of the state file, and of a new one until it is complete.
const NAME: &str = "state.json";
const UNFINISHED: &str = "state.json.new";
/// Prefix of the name of a file that could not be read and was set aside.
const DAMAGED: &str = "state.json.damaged-";

/// Version of the format below. Files of other versions are not read.
const VERSION: u32 = 1;

/// Maximum size of a state file in bytes: enough for the maximum number of probes with the longest
/// names.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Day 0 of [`PersistedSpending::day`].
const EPOCH: Date = Date::constant(1970, 1, 1);

/// Identity of a probe. A probe keeps its state across a restart as long as all of these are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    probe: String,
    provider: String,
    check: String,
    /// Empty if the probe has no model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    model: String,
}

impl Identity {
    /// Returns the identity of a subject.
    pub fn new(Subject { probe, provider, check, model }: Subject<'_>) -> Self {
        let check: Check = check;
        Self {
            probe: probe.to_owned(),
            provider: provider.to_owned(),
            check: check.name().to_owned(),
            model: model.unwrap_or_default().to_owned(),
        }
    }
}

/// The persisted state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersistedState {
    /// Spending of the day. `None` if there is no budget.
    pub spending: Option<PersistedSpending>,
    /// State by probe, without probes that have none.
    pub probes: BTreeMap<Identity, PersistedProbe>,
}

/// Spending of a UTC day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PersistedSpending {
    /// Day number, counted from 1970-01-01.
    pub day: u64,
    /// US dollars, finite and not negative.
    pub usd: f64,
    /// Input and output tokens.
    pub tokens: u64,
}

/// The persisted state of one probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistedProbe {
    /// Start of the last finished run. `None` if unknown.
    pub last_run: Option<SystemTime>,
    /// Start of the last successful run. `None` if unknown.
    pub last_success: Option<SystemTime>,
    /// The backoff. `None` if there is none, so that the next wait would be the first.
    pub backoff: Option<PersistedBackoff>,
}

/// The persisted backoff of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistedBackoff {
    /// Time until which no run takes place. `None` if the wait is over and only its step remains.
    pub until: Option<SystemTime>,
    /// The last wait without a hint, in intervals.
    pub step: u64,
}

/// Result of reading the state file.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// The state; empty if there was no readable file.
    pub kept: PersistedState,
    /// Reason why the file could not be read, and its present name. `None` if there was no error.
    pub warning: Option<String>,
}

/// Reads the state in a directory, as of `now`. A file that cannot be read is set aside.
pub fn load(directory: &Path, now: SystemTime) -> RestoredState {
    let path = directory.join(NAME);
    let read = read(&path).and_then(|bytes| match bytes {
        Some(bytes) => parse(&bytes, now),
        None => Ok(PersistedState::default()),
    });
    match read {
        Ok(kept) => RestoredState { kept, warning: None },
        Err(why) => {
            let path = path.display();
            let aside = match put_aside(directory, now) {
                Ok(name) => format!("it was renamed to {name}"),
                Err(error) => format!("renaming it failed: {error}"),
            };
            let warning = format!("{path} {why}; {aside}; backoff and spending start from zero");
            RestoredState { kept: PersistedState::default(), warning: Some(warning) }
        }
    }
}

/// Replaces the state file, and creates the directory if it is missing. After success the new state
/// survives a crash of the machine; after an error either the old or the new one does.
pub(super) fn save(directory: &Path, kept: &PersistedState) -> io::Result<()> {
    let bytes = render(kept);
    let mut file = match create(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory)?;
            create(directory)?
        }
        created => created?,
    };
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(directory.join(UNFINISHED), directory.join(NAME))?;
    File::open(directory)?.sync_all()
}

/// Creates a new file. An existing file or link in its place is removed and not followed, because
/// the directory may be writable for users other than root, as whom the prober may run.
fn create(directory: &Path) -> io::Result<File> {
    let path = directory.join(UNFINISHED);
    #[cfg(test)]
    block_if_requested(directory);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)
}

/// A FIFO of this name blocks writes, as a blocked disk does, until a reader opens it.
#[cfg(test)]
pub(super) const BLOCK: &str = "block";

#[cfg(test)]
fn block_if_requested(directory: &Path) {
    // Most tests have no such FIFO.
    let _ = OpenOptions::new().write(true).open(directory.join(BLOCK));
}

/// Reads the file. Returns `None` if it does not exist. Links are not followed, and a FIFO does not
/// block the start.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if !metadata.is_file() => return Err("is not a regular file".to_owned()),
        Ok(_) => {}
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    Ok(Some(bytes))
}

/// Renames the file, and removes the one that was set aside before, since one is enough to
/// investigate.
fn put_aside(directory: &Path, now: SystemTime) -> io::Result<String> {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = format!("{DAMAGED}{seconds}");
    let earlier: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(is_damaged))
        .collect();
    fs::rename(directory.join(NAME), directory.join(&name))?;
    for path in earlier.into_iter().filter(|path| *path != directory.join(&name)) {
        // A file that cannot be removed only takes space.
        let _ = fs::remove_file(path);
    }
    Ok(name)
}

fn is_damaged(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(DAMAGED.as_bytes())
}

/// The file format. Times are RFC 3339, to be readable.
#[derive(Debug, Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<BudgetOnDisk>,
    probes: Vec<ProbeOnDisk>,
}

#[derive(Debug, Serialize, Deserialize)]
struct BudgetOnDisk {
    day: String,
    spent_usd: f64,
    spent_tokens: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProbeOnDisk {
    #[serde(flatten)]
    identity: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_run: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_success: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backoff: Option<BackoffOnDisk>,
}

#[derive(Debug, Serialize, Deserialize)]
struct BackoffOnDisk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    step: u64,
}

/// The version alone, which decides whether the rest can be parsed.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn parse(bytes: &[u8], now: SystemTime) -> Result<PersistedState, String> {
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    if version != VERSION {
        return Err(format!("has format version {version}; this program reads version {VERSION}"));
    }
    let OnDisk { version: _, budget, probes } =
        serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    // Times in the future are invalid.
    let past = |text: Option<String>| time(text).filter(|time| *time <= now);
    let probes = probes.into_iter().map(|probe| {
        let ProbeOnDisk { identity, last_run, last_success, backoff } = probe;
        let backoff =
            backoff.map(|BackoffOnDisk { until, step }| PersistedBackoff { until: time(until), step });
        let kept = PersistedProbe { last_run: past(last_run), last_success: past(last_success), backoff };
        (identity, kept)
    });
    Ok(PersistedState { spending: budget.and_then(spending), probes: probes.collect() })
}

/// Returns the position of the error, without quoting the file.
fn damaged(error: &serde_json::Error) -> String {
    format!("is damaged at line {}, column {}", error.line(), error.column())
}

fn spending(BudgetOnDisk { day, spent_usd, spent_tokens }: BudgetOnDisk) -> Option<PersistedSpending> {
    let day: Date = day.parse().ok()?;
    let day = u64::try_from((day - EPOCH).get_days()).ok()?;
    Some(PersistedSpending { day, usd: spent_usd.max(0.0), tokens: spent_tokens })
}

fn time(text: Option<String>) -> Option<SystemTime> {
    text?.parse::<Timestamp>().ok().map(SystemTime::from)
}

fn render(kept: &PersistedState) -> Vec<u8> {
    let PersistedState { spending, probes } = kept;
    let budget = spending.map(|PersistedSpending { day, usd, tokens }| BudgetOnDisk {
        day: date(day).to_string(),
        spent_usd: usd,
        spent_tokens: tokens,
    });
    let text = |time: Option<SystemTime>| Some(Timestamp::try_from(time?).ok()?.to_string());
    let probes = probes.iter().map(|(identity, kept)| {
        let PersistedProbe { last_run, last_success, backoff } = *kept;
        ProbeOnDisk {
            identity: identity.clone(),
            last_run: text(last_run),
            last_success: text(last_success),
            backoff: backoff
                .map(|PersistedBackoff { until, step }| BackoffOnDisk { until: text(until), step }),
        }
    });
    let on_disk = OnDisk { version: VERSION, budget, probes: probes.collect() };
    let mut bytes = serde_json::to_vec(&on_disk).expect("all keys are strings");
    bytes.push(b'\n');
    bytes
}

/// Returns the date of a day number, or the last date of the calendar if it is out of range.
fn date(day: u64) -> Date {
    let days = jiff::Span::new().try_days(i64::try_from(day).unwrap_or(i64::MAX));
    days.and_then(|days| EPOCH.checked_add(days)).unwrap_or(Date::MAX)
}

#[cfg(test)]
mod tests;
