//! Accounts for each slot, from the records and the documented schedule.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader},
    ops::Range,
    path::Path,
    time::{Duration, SystemTime},
};

use serde::Deserialize;

use super::page::Page;

/// Interval of every probe.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum delay of a start after its slot: a quarter of the interval. A later run must be skipped.
const LATENESS: Duration = Duration::from_millis(250);
/// Tolerance for a record: it has milliseconds, the wall clock may be slewed while the schedule
/// follows the monotonic one, and a busy machine may suspend a thread between two readings of the
/// clock.
const TOLERANCE: Duration = Duration::from_millis(100);
/// A second record of the same time would be an overlap; smaller differences are rounding.
const ROUNDING: Duration = Duration::from_millis(1);

/// Result of the account.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Recorded runs, from the start to the stop.
    pub(crate) records: u64,
    /// Of these, runs that began between the first sample and the last.
    pub(crate) begun: u64,
    /// Bytes of all records.
    pub(crate) record_bytes: u64,
    /// Failed runs by reason.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Slots between the first sample and the last that must be over by the last scrape.
    pub(crate) due: u64,
    /// Of these, slots with a run.
    pub(crate) runs: u64,
    /// Of these, slots without a run or a counted skip.
    pub(crate) lost: u64,
    /// Counted skips without a slot that has no run, since the start.
    pub(crate) overcounted: u64,
    /// Slots with more than one run.
    pub(crate) doubled: u64,
    /// Runs that began before the previous run of the same probe had ended.
    pub(crate) overlaps: u64,
    /// Maximum number of runs in flight, of all probes.
    pub(crate) most_in_flight: usize,
    /// Milliseconds from the slot to the start of each run, in ascending order.
    pub(crate) deviations: Vec<f64>,
    /// Medians of the first and of the last tenth of the runs, whose difference is the drift.
    pub(crate) drift: [f64; 2],
    /// Runs further from their slot than guaranteed.
    pub(crate) off_grid: u64,
    /// Durations of runs in milliseconds, in ascending order.
    pub(crate) durations: Vec<f64>,
}

/// Members read from a record.
#[derive(Deserialize)]
struct Line {
    time: String,
    probe: String,
    reason: String,
    duration_seconds: f64,
}

/// One run, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Run {
    started: u64,
    ended: u64,
}

impl Account {
    /// Reads the records of a daemon that was started and ready at these times, and stopped after
    /// `page` was requested at `asked`.
    pub(crate) fn of(
        logs: &Path,
        probes: &[String],
        [started, ready, asked]: [SystemTime; 3],
        page: &Page,
    ) -> Result<Self, Box<dyn Error>> {
        check_hash()?;
        let mut account = Self::default();
        let mut by_probe = account.read(logs)?;
        let skipped = page.sums("langmart_probe_skipped_runs_total", "probe");
        let mut deviations = Vec::new();
        let looks = nanoseconds(ready)..nanoseconds(asked);
        for probe in probes {
            let grid = Grid::of(probe);
            let runs = by_probe.remove(probe).unwrap_or_default();
            // A run in the last interval before the scrape may have been in progress.
            let owed = grid.first_from(looks.start)..grid.first_from(nanoseconds(asked - INTERVAL));
            let mut numbers = Vec::with_capacity(runs.len());
            for run in &runs {
                let (number, deviation) = grid.nearest(run.started);
                numbers.push(number);
                deviations.push((run.started, deviation));
                account.begun += u64::from(looks.contains(&run.started));
            }
            account.overlaps += runs.windows(2).filter(|pair| overlap(pair[0], pair[1])).count() as u64;
            let before = numbers.len();
            numbers.dedup();
            account.doubled += (before - numbers.len()) as u64;
            let ran = |due: &Range<u64>| numbers.iter().filter(|number| due.contains(number)).count() as u64;
            let without = |due: &Range<u64>| due.end - due.start - ran(due);
            let skipped = skipped.get(probe).copied().unwrap_or_default() as u64;
            account.due += owed.end - owed.start;
            account.runs += ran(&owed);
            account.lost += without(&owed).saturating_sub(skipped);
            let ever = grid.first_from(nanoseconds(started))..grid.first_from(looks.end);
            account.overcounted += skipped.saturating_sub(without(&ever));
        }
        if let Some(stranger) = by_probe.keys().next() {
            return Err(format!("there are records of {stranger}, which is not configured").into());
        }
        account.judge(deviations);
        Ok(account)
    }

    /// Returns the runs of each probe in the order of their starts.
    fn read(&mut self, logs: &Path) -> Result<HashMap<String, Vec<Run>>, Box<dyn Error>> {
        let mut by_probe: HashMap<String, Vec<Run>> = HashMap::new();
        let mut marks = Vec::new();
        // More than one if midnight is in between.
        for file in fs::read_dir(logs)? {
            let path = file?.path();
            if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("results.jsonl")) {
                continue;
            }
            for line in BufReader::new(File::open(path)?).lines() {
                let line = line?;
                self.records += 1;
                self.record_bytes += line.len() as u64 + 1;
                let Line { time, probe, reason, duration_seconds } = serde_json::from_str(&line)?;
                let started = nanoseconds(time.parse::<jiff::Timestamp>()?.into());
                let ended = started + (duration_seconds * 1e9) as u64;
                if reason != "ok" {
                    *self.failures.entry(reason).or_default() += 1;
                }
                self.durations.push(duration_seconds * 1e3);
                marks.extend([(started, 1), (ended, -1)]);
                by_probe.entry(probe).or_default().push(Run { started, ended });
            }
        }
        for runs in by_probe.values_mut() {
            runs.sort_unstable_by_key(|run| run.started);
        }
        self.durations.sort_unstable_by(f64::total_cmp);
        self.most_in_flight = most_at_a_time(marks);
        Ok(by_probe)
    }

    /// Adds start and deviation of every run, in nanoseconds.
    fn judge(&mut self, mut deviations: Vec<(u64, i64)>) {
        deviations.sort_unstable();
        let allowed = -signed(TOLERANCE)..=signed(LATENESS + TOLERANCE);
        self.off_grid =
            deviations.iter().filter(|(_, deviation)| !allowed.contains(deviation)).count() as u64;
        let milliseconds: Vec<f64> =
            deviations.iter().map(|(_, deviation)| *deviation as f64 / 1e6).collect();
        let tenth = milliseconds.len().div_ceil(10);
        let ends = [&milliseconds[..tenth], &milliseconds[milliseconds.len() - tenth..]];
        self.drift = ends.map(|end| quantile(&sorted(end.to_vec()), 0.5));
        self.deviations = sorted(milliseconds);
    }
}

/// Returns the value below which that share of the ascending values is. Zero without values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn overlap(first: Run, second: Run) -> bool {
    second.started + nanoseconds_of(ROUNDING) < first.ended
}

/// Returns the maximum of a sum, from times of increments (1) and decrements (-1).
fn most_at_a_time(mut marks: Vec<(u64, i32)>) -> usize {
    // An end comes before a start at the same time.
    marks.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in marks {
        now += change;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or_default()
}

/// Slots of a probe, computed independently from the documentation in `src/schedule/plan.rs`: slot
/// k is due at offset + k × interval since the Unix epoch.
struct Grid {
    offset: u64,
}

impl Grid {
    fn of(probe: &str) -> Self {
        Self { offset: hash(probe) % nanoseconds_of(INTERVAL) }
    }

    /// Returns the first slot at or after a time.
    fn first_from(&self, moment: u64) -> u64 {
        (moment - self.offset).div_ceil(nanoseconds_of(INTERVAL))
    }

    /// Returns the slot closest to a time, and the time's distance from it.
    fn nearest(&self, moment: u64) -> (u64, i64) {
        let interval = nanoseconds_of(INTERVAL);
        let number = (moment - self.offset + interval / 2) / interval;
        (number, moment.cast_signed() - (self.offset + number * interval).cast_signed())
    }
}

/// Returns the 64-bit FNV-1a hash with the finalizer of `MurmurHash3`.
fn hash(name: &str) -> u64 {
    let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

/// Checks the documented example.
fn check_hash() -> Result<(), &'static str> {
    match hash("langmart-health") {
        3_765_831_937_574_976_198 => Ok(()),
        _ => Err("the grid is not the documented one"),
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    nanoseconds_of(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn nanoseconds_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn signed(duration: Duration) -> i64 {
    nanoseconds_of(duration).cast_signed()
}
