//! The state on disk: one JSON file with a version, replaced atomically, read with mistrust.

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

/// The file in the state directory, and what a new one is called until it is whole.
const NAME: &str = "state.json";
const UNFINISHED: &str = "state.json.new";
/// What the name of a file that could not be read begins with, once it is put aside.
const DAMAGED: &str = "state.json.damaged-";

/// Of the form below. Another one is some other program version's, and is not guessed at.
const VERSION: u32 = 1;

/// The most that a state file may hold, in bytes: the most probes that a configuration may have, with the longest names.
const LONGEST: u64 = 16 << 20;

/// The days between year 0 of the calendar's day count and 1970.
const EPOCH: Date = Date::constant(1970, 1, 1);

/// Which probe: the same over a restart while all of these are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    probe: String,
    provider: String,
    check: String,
    /// Empty: the probe has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    model: String,
}

impl Identity {
    /// Whose records and series these are.
    pub fn of(Subject { probe, provider, check, model }: Subject<'_>) -> Self {
        let check: Check = check;
        Self {
            probe: probe.to_owned(),
            provider: provider.to_owned(),
            check: check.name().to_owned(),
            model: model.unwrap_or_default().to_owned(),
        }
    }
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// The day's spending; `None`: there is no budget.
    pub spending: Option<KeptSpending>,
    /// By probe, those of which anything is known.
    pub probes: BTreeMap<Identity, KeptProbe>,
}

/// What a UTC day has taken of the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeptSpending {
    /// Counted from 1970-01-01.
    pub day: u64,
    /// US dollars, finite, 0 or more.
    pub usd: f64,
    /// Tokens, input and output together.
    pub tokens: u64,
}

/// What is kept of one probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptProbe {
    /// When the last finished run began; `None`: that is not known.
    pub last_run: Option<SystemTime>,
    /// When the last successful run began; `None`: that is not known.
    pub last_success: Option<SystemTime>,
    /// `None`: no wait, and the next one would be the first.
    pub backoff: Option<KeptBackoff>,
}

/// A probe's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptBackoff {
    /// No run before then; `None`: the wait is over, its step is left.
    pub until: Option<SystemTime>,
    /// The last wait without a hint, in intervals.
    pub step: u64,
}

/// What was found, and what the operator should know.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Nothing where there was no file, or none that could be read.
    pub kept: Kept,
    /// Why the file could not be read and where it is now; `None`: all is well.
    pub warning: Option<String>,
}

/// The state in a directory, as of `now`. It never fails: a file that cannot be read is put aside.
pub fn load(directory: &Path, now: SystemTime) -> Loaded {
    let path = directory.join(NAME);
    let read = read(&path).and_then(|bytes| match bytes {
        Some(bytes) => parse(&bytes, now),
        None => Ok(Kept::default()),
    });
    match read {
        Ok(kept) => Loaded { kept, warning: None },
        Err(why) => {
            let path = path.display();
            let aside = match put_aside(directory, now) {
                Ok(name) => format!("it is kept as {name}"),
                Err(error) => format!("nor can it be put aside: {error}"),
            };
            let warning = format!("{path} {why}; {aside}; waits and spending begin anew");
            Loaded { kept: Kept::default(), warning: Some(warning) }
        }
    }
}

/// Replaces the file in the directory, which is made where it is missing. After a return without an error the new state
/// survives a crash of the machine; after one with it, the old one or the new one does.
pub(super) fn save(directory: &Path, kept: &Kept) -> io::Result<()> {
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

/// Begins a new file. Whatever is in its place is removed, and a link there is not followed: the directory may be writable
/// for others than root, who may run the prober.
fn create(directory: &Path) -> io::Result<File> {
    let path = directory.join(UNFINISHED);
    #[cfg(test)]
    held_up(directory);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)
}

/// A pipe of this name holds writes up as a disk does that blocks, until a reader opens it.
#[cfg(test)]
pub(super) const HOLD: &str = "hold";

#[cfg(test)]
fn held_up(directory: &Path) {
    // There is none in most tests.
    let _ = OpenOptions::new().write(true).open(directory.join(HOLD));
}

/// The bytes of the file; `None`: there is none. A link is not followed, and a pipe does not block the start.
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
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("is larger than {LONGEST} bytes"));
    }
    Ok(Some(bytes))
}

/// Renames the file, and removes the one that was put aside before: one is enough to see what happened.
fn put_aside(directory: &Path, now: SystemTime) -> io::Result<String> {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = format!("{DAMAGED}{seconds}");
    let earlier: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(is_damaged))
        .collect();
    fs::rename(directory.join(NAME), directory.join(&name))?;
    for path in earlier.into_iter().filter(|path| *path != directory.join(&name)) {
        // What cannot be removed is one file too many, and no more.
        let _ = fs::remove_file(path);
    }
    Ok(name)
}

fn is_damaged(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(DAMAGED.as_bytes())
}

/// The form on disk. Times are RFC 3339, since people look into it too.
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

/// Only the version, which says whether the rest can be understood.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn parse(bytes: &[u8], now: SystemTime) -> Result<Kept, String> {
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    if version != VERSION {
        return Err(format!(
            "has version {version}, of another version of this program, which has {VERSION}"
        ));
    }
    let OnDisk { version: _, budget, probes } =
        serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    // What is ahead of the clock has not happened.
    let past = |text: Option<String>| time(text).filter(|time| *time <= now);
    let probes = probes.into_iter().map(|probe| {
        let ProbeOnDisk { identity, last_run, last_success, backoff } = probe;
        let backoff = backoff.map(|BackoffOnDisk { until, step }| KeptBackoff { until: time(until), step });
        let kept = KeptProbe { last_run: past(last_run), last_success: past(last_success), backoff };
        (identity, kept)
    });
    Ok(Kept { spending: budget.and_then(spending), probes: probes.collect() })
}

/// Where the file is broken; not what stands there.
fn damaged(error: &serde_json::Error) -> String {
    format!("is damaged at line {}, column {}", error.line(), error.column())
}

fn spending(BudgetOnDisk { day, spent_usd, spent_tokens }: BudgetOnDisk) -> Option<KeptSpending> {
    let day: Date = day.parse().ok()?;
    let day = u64::try_from((day - EPOCH).get_days()).ok()?;
    Some(KeptSpending { day, usd: spent_usd.max(0.0), tokens: spent_tokens })
}

fn time(text: Option<String>) -> Option<SystemTime> {
    text?.parse::<Timestamp>().ok().map(SystemTime::from)
}

fn render(kept: &Kept) -> Vec<u8> {
    let Kept { spending, probes } = kept;
    let budget = spending.map(|KeptSpending { day, usd, tokens }| BudgetOnDisk {
        day: date(day).to_string(),
        spent_usd: usd,
        spent_tokens: tokens,
    });
    let text = |time: Option<SystemTime>| Some(Timestamp::try_from(time?).ok()?.to_string());
    let probes = probes.iter().map(|(identity, kept)| {
        let KeptProbe { last_run, last_success, backoff } = *kept;
        ProbeOnDisk {
            identity: identity.clone(),
            last_run: text(last_run),
            last_success: text(last_success),
            backoff: backoff.map(|KeptBackoff { until, step }| BackoffOnDisk { until: text(until), step }),
        }
    });
    let on_disk = OnDisk { version: VERSION, budget, probes: probes.collect() };
    let mut bytes = serde_json::to_vec(&on_disk).expect("it has no key that is no string");
    bytes.push(b'\n');
    bytes
}

/// The calendar's date of a day; of one that it cannot hold, its last.
fn date(day: u64) -> Date {
    let days = jiff::Span::new().try_days(i64::try_from(day).unwrap_or(i64::MAX));
    days.and_then(|days| EPOCH.checked_add(days)).unwrap_or(Date::MAX)
}

#[cfg(test)]
mod tests;
